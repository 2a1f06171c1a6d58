// Elements made of text and attributes. Nothing is ever parsed as HTML: what documents hold stays text.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. `class`, `data-…`, `aria-…` and the like are attributes; a function behind `on…` listens. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const find = (id) => document.getElementById(id);

const WHOLE = new Intl.NumberFormat("en");

export const whole = (number) => WHOLE.format(number);

/** "1 hit", "1,200 hits". */
export const counted = (number, thing, things = `${thing}s`) => `${whole(number)} ${number === 1 ? thing : things}`;

/** Three significant digits: 0.732, 12.3, 105. */
export function short(number) {
  if (!Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  return number.toFixed(size < 1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0);
}

/** Milliseconds: 4.5, 123. */
export const ms = (number) => (number < 10 ? number.toFixed(1) : whole(Math.round(number)));

/** A metadata value as people read it. */
export function spelt(value) {
  if (Array.isArray(value)) return value.map(spelt).join(", ");
  if (value !== null && typeof value === "object") return JSON.stringify(value);
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value ?? "–");
}

/** Read or write browser storage; where it is switched off, nothing is kept. */
export function kept(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

export function keep(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
  } catch {
    // Kept by nobody: the page works, and forgets with this tab's next load.
  }
}
