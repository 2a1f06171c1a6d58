// Why a passage matched by a learned sparse model: what each shared term adds to the score, and the terms of both texts.

import { counted, el, short } from "./dom.js";

const SHARED = 15;
const TERMS = 20;

function shared({ shared: terms, score }) {
  if (!terms.length) return el("p", { class: "muted" }, "Query and passage have no term in common.");
  const rows = terms.slice(0, SHARED).map(({ term, query, document, product }) =>
    el(
      "tr",
      {},
      el("td", { dir: "auto" }, term),
      el("td", { class: "digits" }, short(query)),
      el("td", { class: "digits" }, short(document)),
      el("td", { class: "digits" }, short(product), " ", el("meter", { min: 0, max: 1, value: score > 0 ? Math.max(0, product / score) : 0, "aria-hidden": "true" })),
    ),
  );
  const more = terms.length - rows.length;
  return [
    el(
      "table",
      { class: "pairs" },
      el("caption", {}, "Shared terms"),
      el("thead", {}, el("tr", {}, ["term", "query", "passage", "adds"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows),
    ),
    more > 0 && el("p", { class: "muted" }, `${counted(more, "more term")} they share.`),
  ];
}

function ofText(name, { terms }) {
  const shown = terms.slice(0, TERMS).map(({ term, weight, in_text: own }) =>
    el("li", { class: own ? "" : "added", title: own ? "in the text" : "added by the model" }, el("bdi", {}, `${own ? "" : "+"}${term}`), " ", el("span", { class: "digits muted" }, short(weight))),
  );
  const more = terms.length - shown.length;
  return el(
    "section",
    {},
    el("h3", {}, name),
    shown.length ? el("ul", { class: "terms" }, shown) : el("p", { class: "muted" }, "No terms."),
    more > 0 && el("p", { class: "muted" }, `and ${counted(more, "weaker term")}.`),
  );
}

/** The whole view of an explanation by terms. */
export function termsView(explained) {
  const { query, document, score, shared: terms } = explained;
  return el(
    "div",
    { class: "why" },
    el("p", {}, "Score by the model's terms: ", el("strong", { class: "digits" }, short(score)), `, the sum over ${counted(terms.length, "shared term")}: the weight in the query times that in the passage. Terms with a plus are not in the text; the model added them.`),
    shared(explained),
    ofText("Query", query),
    ofText("Passage", document),
  );
}
