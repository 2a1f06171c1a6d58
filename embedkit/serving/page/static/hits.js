// One hit as an item of a list, and the list.

import { el, short, spelt } from "./dom.js";
import { marked } from "./marks.js";

const DOTS = 5;
const CHIPS = 5;
const CHIP = 60; // characters
const SIDES = { dense: "meaning", sparse: "terms", text: "words", rerank: "reranker" };

/** Five dots for a strength from 0 to 1, filled as the command line fills them. */
export function meter(strength, weak) {
  const full = Math.min(DOTS, Math.ceil(strength * DOTS));
  const said = weak ? "weak: no better than chance" : `strength ${full} of ${DOTS}`;
  const dots = Array.from({ length: DOTS }, (_, place) => el("i", { class: place < full ? "full" : "" }));
  return el("span", { class: "meter", role: "img", "aria-label": said, title: said }, dots);
}

/** Which side found it, each with its own score. */
export function sides(scores) {
  const found = Object.entries(SIDES).filter(([name]) => Number.isFinite(scores?.[name]));
  return el(
    "span",
    { class: "sides" },
    found.map(([name, label]) =>
      el("span", { class: `side-score ${name}` }, el("span", {}, label), " ", el("span", { class: "digits" }, short(scores[name]))),
    ),
  );
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most).trimEnd()}…` : text);

function chips(metadata) {
  const shown = Object.entries(metadata ?? {}).filter(([, value]) => value !== null && value !== "");
  if (!shown.length) return null;
  const made = shown.slice(0, CHIPS).map(([name, value]) => {
    const text = spelt(value);
    const title = `${name}: ${text.slice(0, 1000)}`;
    return el("li", { title }, el("bdi", { class: "chip-name" }, cut(name, CHIP / 2)), " ", el("bdi", {}, cut(text, CHIP)));
  });
  if (shown.length > CHIPS) made.push(el("li", { class: "more-chips" }, `+${shown.length - CHIPS}`));
  return el("ul", { class: "chips", "aria-label": "Metadata" }, made);
}

/** What a hit is called, and whether its place says more than that. */
export const titleOf = (hit) => hit.title || hit.where || hit.id;

/** An item of the list. `open(event)` is called for clicks that stay in this tab; `href` is for those that do not. */
export function hitItem(hit, { href, open, several }) {
  const title = titleOf(hit);
  const link = el("a", { class: "hit-title", href, dir: "auto" }, title);
  const item = el(
    "li",
    { class: `hit${hit.weak ? " weak" : ""}` },
    el(
      "div",
      { class: "hit-head" },
      el("h3", {}, link),
      el(
        "span",
        { class: "hit-score" },
        hit.weak && el("span", { class: "weak-name" }, "weak"),
        meter(hit.strength, hit.weak),
        el("span", { class: "digits", title: "score" }, short(hit.score)),
      ),
    ),
    el(
      "p",
      { class: "hit-where" },
      several && el("span", { class: "hit-index" }, hit.index),
      hit.where && hit.where !== title && el("bdi", { class: "place" }, hit.where),
      sides(hit.scores),
    ),
    hit.snippet.text && el("p", { class: "snippet", dir: "auto" }, marked(hit.snippet)),
    chips(hit.metadata),
  );
  item.addEventListener("click", (event) => {
    const other = event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
    if (event.defaultPrevented || other) return;
    const onLink = event.target.closest("a") !== null;
    if (!onLink && !getSelection().isCollapsed) return; // text is being selected
    event.preventDefault();
    open(link);
  });
  return item;
}
