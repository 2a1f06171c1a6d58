// What concerns the reader, not the search: colours, the API key, dialogs.

import { hasKey, useKey } from "./api.js";
import { find, keep, kept } from "./dom.js";

const THEME = "embedkit.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "Colours: as the system has them", light: "Colours: light", dark: "Colours: dark" };

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  find("theme-icon").setAttribute("href", `#i-${theme}`);
  find("theme-name").textContent = find("theme").title = NAMES[theme];
  find("theme").onclick = () => {
    keep("localStorage", THEME, NEXT[theme] === "auto" ? null : NEXT[theme]);
    setTheme(NEXT[theme]);
  };
}

export function askKey() {
  const dialog = find("key");
  find("key-error").textContent = hasKey() ? "The server refused this key." : "";
  if (!dialog.open) dialog.showModal();
  find("key-input").select();
}

/** `start` begins anew, with another key. */
export function settle(start) {
  setTheme(NEXT[kept("localStorage", THEME)] ? kept("localStorage", THEME) : "auto");
  find("help-open").addEventListener("click", () => find("help").showModal());
  find("forget").addEventListener("click", () => {
    useKey("");
    location.reload();
  });
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = find("key-input").value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) {
      find("key-error").textContent = "A key has letters, digits and signs of ASCII, and no spaces.";
      return;
    }
    useKey(given);
    find("key-input").value = "";
    find("key").close();
    start();
  });
  for (const dialog of document.querySelectorAll("dialog.box"))
    dialog.addEventListener("click", ({ target }) => (target === dialog || target.closest("[data-close]")) && dialog.close());
}
