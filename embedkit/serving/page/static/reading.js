// The text of a document with one passage marked, its metadata, and the way to its other passages.

import { counted, el, spelt, whole } from "./dom.js";
import { placesIn, withWords } from "./marks.js";

const MOST = 300_000; // characters that are drawn at once; of a longer document, what is around the passage
const AROUND = 60_000;
const FOLDED = 4; // metadata fields that are shown unfolded

/**
 * `place` is one of the document's passages, or undefined; `words` are marked in it. `filterBy(name, value)` returns what filters by a
 * value, or null; `go(passage)` opens another passage.
 */
export function documentView(document, place, { words, filterBy, go }) {
  const { passages = [] } = document;
  return el("div", { class: "document" }, passages.length > 1 && passageSteps(passages, place, go), metadata(document, filterBy), fullText(document.text, place, words));
}

function passageSteps(passages, place, go) {
  const at = passages.indexOf(place);
  const step = (label, by, sign) =>
    el("button", { class: "quiet", type: "button", disabled: !passages[at + by], onclick: () => go(passages[at + by].passage), "aria-label": label }, sign);
  return el(
    "p",
    { class: "passage-steps" },
    el("span", {}, `Passage ${whole(at + 1)} of ${whole(passages.length)}`),
    step("Previous passage", -1, "←"),
    step("Next passage", 1, "→"),
  );
}

function metadata({ metadata: known, source }, filterBy) {
  const fields = Object.entries(known ?? {});
  if (source) fields.push(["source", source]);
  if (!fields.length) return null;
  const rows = fields.map(([name, value]) => {
    const filter = filterBy(name, value);
    const text = el("bdi", {}, spelt(value));
    const shown = filter ? el("button", { class: "as-filter", type: "button", title: `Only documents with this ${name}`, onclick: filter }, text) : text;
    return el("div", {}, el("dt", { dir: "auto" }, name), el("dd", {}, shown));
  });
  const list = el("dl", { class: "metadata" }, rows);
  if (rows.length <= FOLDED) return list;
  return el("details", { class: "metadata-fold" }, el("summary", {}, counted(rows.length, "metadata field")), list);
}

function fullText(text, place, words) {
  const at = placesIn(text);
  const [start, stop] = place ? [at(place.start), at(place.stop)] : [0, 0];
  const all = el("div", { class: "full-text" });
  const part = (content) => el("div", { dir: "auto" }, content);
  // Each part is a block of its own: the line end or the space between two of them is not shown twice.
  const passage = text.slice(start, stop);
  const before = (low) => text.slice(low, start).replace(/\n$/, "");
  const after = (high) => text.slice(stop, high).replace(passage.endsWith("\n") || !passage ? "" : /^(\n|[ \t]+)/, "");
  const fill = (low, high) =>
    all.replaceChildren(
      ...[
        start > low && part(before(low)),
        passage && el("div", { class: "passage", dir: "auto", role: "mark" }, withWords(passage.replace(/\n$/, ""), words)),
        high > stop && part(after(high)),
      ].filter(Boolean),
    );
  if (text.length <= MOST) {
    fill(0, text.length);
    return all;
  }
  fill(Math.max(0, start - AROUND), Math.min(text.length, stop + AROUND));
  const more = el("button", { class: "quiet", type: "button" }, `Show all ${whole(text.length)} characters`);
  more.addEventListener("click", () => {
    fill(0, text.length);
    more.remove();
  });
  return el("div", {}, more, all);
}
