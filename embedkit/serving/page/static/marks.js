// Stretches of text: the server counts code points, the browser UTF-16 units.

import { el } from "./dom.js";

/** Return what turns a place in code points into one in UTF-16 units. */
export function placesIn(text) {
  if (!/[\ud800-\udbff]/.test(text)) return (place) => Math.min(place, text.length);
  const places = [];
  let at = 0;
  for (const sign of text) {
    places.push(at);
    at += sign.length;
  }
  return (place) => (place < places.length ? places[place] : text.length);
}

/** Cut a text at spans [start, stop) of UTF-16 units; `mark(part, number)` makes a node of each, the rest is text. */
export function cut(text, spans, mark) {
  const nodes = [];
  let at = 0;
  spans.forEach(([start, stop], number) => {
    if (start < at || stop <= start) return;
    if (start > at) nodes.push(text.slice(at, start));
    nodes.push(mark(text.slice(start, stop), number));
    at = stop;
  });
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

const word = (part) => el("mark", {}, part);

/** A snippet with its matching words marked. */
export function marked({ text, spans }) {
  const place = placesIn(text);
  return cut(text, spans.map(([start, stop]) => [place(start), place(stop)]), word);
}

/** The words that the snippets of some hits have marked, as they are written there. */
export function matchingWords(hits) {
  const found = new Set();
  for (const { snippet } of hits) {
    const place = placesIn(snippet.text);
    for (const [start, stop] of snippet.spans) found.add(snippet.text.slice(place(start), place(stop)).toLowerCase());
  }
  found.delete("");
  return [...found];
}

const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}]/u;
const SIGNS = /[.*+?^${}()|[\]\\/]/g;

/** A text with every occurrence of these words marked; whole words, but in scripts without spaces. */
export function withWords(text, words) {
  if (!words.length) return [text];
  const longest = [...words].sort((one, other) => other.length - one.length);
  const parts = longest.map((each) => {
    const quoted = each.replace(SIGNS, "\\$&");
    return UNSPACED.test(each) ? quoted : `(?<![\\p{L}\\p{N}_])${quoted}(?![\\p{L}\\p{N}_])`;
  });
  const spans = [...text.matchAll(new RegExp(parts.join("|"), "giu"))].map((match) => [
    match.index,
    match.index + match[0].length,
  ]);
  return cut(text, spans, word);
}
