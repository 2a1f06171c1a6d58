// The keyboard, from the search box through the hits into the document and back.

import { find, keep, kept } from "./dom.js";
import { isWide } from "./panel.js";

const NAME = "embedkit.keys";
const TYPED = "input:not([type=checkbox]):not([type=radio]), textarea, select";

const links = () => [...find("results").querySelectorAll("a.hit-title")];
const here = () => links().indexOf(document.activeElement?.closest?.("li.hit")?.querySelector("a.hit-title"));

export function focusHit(link) {
  link.focus({ preventScroll: true });
  link.closest("li").scrollIntoView({ block: "nearest" });
}

/** `host`: panel, close(), step(by), follow(link), enter(). */
export function listen(host) {
  const box = find("query");
  const single = find("single-keys");
  single.checked = kept("localStorage", NAME) !== "off";
  single.addEventListener("change", () => keep("localStorage", NAME, single.checked ? null : "off"));

  const move = (by) => {
    const all = links();
    if (!all.length) return false;
    if (host.panel.isOpen && find("panel").contains(document.activeElement)) return host.step(by);
    const open = all.findIndex((link) => link.getAttribute("aria-current"));
    const next = (here() >= 0 ? here() : open) + by;
    if (next < 0) {
      box.focus();
      return true;
    }
    const link = all[Math.min(next, all.length - 1)];
    focusHit(link);
    if (host.panel.isOpen && isWide.matches) host.follow(link);
    return true;
  };

  const inBox = (event) => {
    if (event.key === "ArrowDown" && links().length) {
      focusHit(links()[0]);
      return true;
    }
    if (event.key === "Enter") {
      host.enter();
      if (matchMedia("(pointer: coarse)").matches) box.blur(); // the keyboard of a telephone hides the hits
      return true;
    }
    return false;
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.metaKey || event.ctrlKey || event.altKey) return;
    if (find("help").open || find("key").open) return; // they have their own keys
    const { target, key } = event;
    let done = false;
    if (key === "Escape" && host.panel.isOpen && !find("panel").matches(":modal")) done = host.close();
    else if (target === box) done = inBox(event);
    else if (target.matches(TYPED)) return;
    else if (key === "ArrowDown" || key === "ArrowUp") {
      if (target === document.body || find("results").contains(target)) done = move(key === "ArrowDown" ? 1 : -1);
    } else if (single.checked) done = ofOneSign(key);
    if (done) event.preventDefault();
  });

  const ofOneSign = (key) => {
    if (key === "j" || key === "k") return move(key === "j" ? 1 : -1);
    if (key === "/" && !find("panel").matches(":modal")) {
      box.focus();
      box.select();
      return true;
    }
    if (key === "?") {
      find("help").showModal();
      return true;
    }
    return false;
  };
}
