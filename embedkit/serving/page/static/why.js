// Why a passage matched: both texts with their words coloured by what they add to the score, and the nearest pairs.

import { el, short } from "./dom.js";
import { cut, placesIn } from "./marks.js";

const LEVELS = 5;
const LEAST = 0.08; // of the largest weight; below it a word has no colour
const PAIRS = 10;

const signed = (number) => `${number < 0 ? "−" : "+"}${short(Math.abs(number))}`;

function heat(text, { words, limit, side }) {
  const place = placesIn(text);
  const spans = words.map(({ start, stop }) => [place(start), place(stop)]);
  return cut(text, spans, (part, number) => {
    const { weight } = words[number];
    const share = limit > 0 ? Math.abs(weight) / limit : 0;
    const level = share < LEAST ? 0 : Math.ceil(share * LEVELS);
    const kind = level === 0 ? "" : ` ${weight < 0 ? "down" : "up"}${level}`;
    return el("span", { class: `warm${kind}`, "data-word": `${side}${number}`, title: signed(weight) }, part);
  });
}

function strongest({ text, words }, limit) {
  const place = placesIn(text);
  return [...words]
    .filter(({ weight }) => weight >= LEAST * limit && weight > 0)
    .sort((one, other) => other.weight - one.weight)
    .slice(0, 5)
    .map(({ start, stop, weight }) => `${text.slice(place(start), place(stop)).trim()} ${signed(weight)}`);
}

function coloured(name, part, limit, side) {
  const best = strongest(part, limit);
  return el(
    "section",
    { class: "heat-part" },
    el("h3", {}, name),
    el("div", { class: "heat", dir: "auto" }, heat(part.text.trimEnd(), { words: part.words, limit, side })),
    best.length > 0 && el("p", { class: "muted" }, "Most: ", el("bdi", {}, best.join(", "))),
  );
}

function legend() {
  const steps = [...Array(LEVELS).keys()];
  return el(
    "p",
    { class: "legend" },
    el("span", {}, "lowers"),
    el(
      "span",
      { class: "scale", "aria-hidden": "true" },
      steps.map((step) => el("i", { class: `down${LEVELS - step}` })),
      el("i", { class: "none" }),
      steps.map((step) => el("i", { class: `up${step + 1}` })),
    ),
    el("span", {}, "raises the score"),
  );
}

function pairs({ query, document, matches }, root) {
  const best = [...matches].sort((one, other) => other.cosine - one.cosine).slice(0, PAIRS);
  if (!best.length) return null;
  const word = ({ text, words }, number) => {
    const place = placesIn(text);
    return text.slice(place(words[number].start), place(words[number].stop)).trim();
  };
  const light = (match, on) => {
    for (const name of [`q${match.query_word}`, `d${match.document_word}`])
      root().querySelector(`[data-word="${name}"]`)?.classList.toggle("lit", on);
  };
  const rows = best.map((match) =>
    el(
      "tr",
      { onmouseenter: () => light(match, true), onmouseleave: () => light(match, false) },
      el("td", { dir: "auto" }, word(query, match.query_word)),
      el("td", { dir: "auto" }, word(document, match.document_word)),
      el("td", { class: "digits" }, short(match.cosine), " ", el("meter", { min: 0, max: 1, value: Math.max(0, match.cosine), "aria-hidden": "true" })),
    ),
  );
  return el(
    "table",
    { class: "pairs" },
    el("caption", {}, "Nearest pairs of words"),
    el("thead", {}, el("tr", {}, ["query", "passage", "cosine"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows),
  );
}

/** The whole view of an explanation. */
export function whyView(explained) {
  const { query, document, score } = explained;
  const [named, meant] =
    explained.kind === "multi-vector"
      ? ["Score by the model's tokens: ", ", the sum over the query's tokens of the cosine with the nearest one in the passage. The colour of a token says what it adds."]
      : ["Similarity of query and passage by meaning: ", ". The colour of a word says how much the similarity falls, or rises, without it."];
  const limit = Math.max(0, ...[...query.words, ...document.words].map(({ weight }) => Math.abs(weight)));
  const view = el(
    "div",
    { class: "why" },
    el("p", {}, named, el("strong", { class: "digits" }, short(score)), meant),
    legend(),
    coloured("Query", query, limit, "q"),
    coloured("Passage", document, limit, "d"),
    pairs(explained, () => view),
  );
  return view;
}
