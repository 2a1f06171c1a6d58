// Sets the remembered colours before anything is drawn, so that nothing flashes. Not a module: modules run after parsing.
"use strict";
try {
  const kept = localStorage.getItem("embedkit.theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch {
  // Storage is switched off in this browser: the system's colours are used.
}
