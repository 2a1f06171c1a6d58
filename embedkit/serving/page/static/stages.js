// What stands in the place of hits: the beginning, waiting, nothing found, failures, a server without an index.

import { counted, el, whole } from "./dom.js";

const stage = (name, ...children) => el("section", { class: `stage ${name}` }, ...children);
const button = (label, act, kind = "primary") => el("button", { class: kind, type: "button", onclick: act }, label);

/** Before anything is typed: what can be searched here. */
export function beginning(indexes) {
  const documents = indexes.reduce((sum, { documents }) => sum + documents, 0);
  const where = indexes.length === 1 ? indexes[0].name : counted(indexes.length, "index", "indexes");
  return stage(
    "beginning",
    el("p", { class: "lead" }, "Search ", el("strong", {}, counted(documents, "document")), " in ", el("bdi", {}, where), "."),
    el("p", { class: "muted" }, "Ask in your own words: a question, a few words, a sentence like the one you look for."),
    el(
      "ul",
      { class: "index-list" },
      indexes.map((index) =>
        el(
          "li",
          {},
          el("strong", { dir: "auto" }, index.name),
          el("span", {}, `${counted(index.documents, "document")}, ${counted(index.passages, "passage")}`),
          el("span", { class: "model" }, index.model ?? ""),
        ),
      ),
    ),
    el("p", { class: "muted keys-line" }, el("kbd", {}, "/"), " to type, ", el("kbd", {}, "↓"), " to the hits, ", el("kbd", {}, "Enter"), " to open, ", el("kbd", {}, "?"), " for all keys"),
  );
}

/** Grey lines where hits will be. */
export function waiting() {
  const item = () => el("div", { class: "bone" }, el("i", {}), el("i", {}), el("i", {}));
  return el("div", { class: "skeleton", "aria-hidden": "true" }, item(), item(), item(), item());
}

export function nothing({ query, leftOut, filtered, mode, showAll, clear, hybrid }) {
  const weak = leftOut === 1 ? "One weak hit was left out: it is no nearer to the query than chance would be." : `${whole(leftOut)} weak hits were left out: they are no nearer to the query than chance would be.`;
  return stage(
    "nothing",
    el("h2", {}, "Nothing found for ", el("q", { dir: "auto" }, query)),
    leftOut > 0 && el("p", {}, weak),
    filtered && el("p", {}, "Filters are set; without them there may be hits."),
    !leftOut && !filtered && el("p", {}, mode === "text" ? "No document has these words." : "Other words may find it."),
    el(
      "div",
      { class: "actions" },
      leftOut > 0 && button(leftOut === 1 ? "Show it" : "Show them", showAll),
      filtered && button("Clear all filters", clear, leftOut > 0 ? "quiet" : "primary"),
      mode === "text" && hybrid && button("Search by meaning, too", hybrid, "quiet"),
    ),
  );
}

const HEADS = {
  network: "No connection to the server",
  key: "This server wants an API key",
  busy: "The server is busy",
  refused: "The server refused this search",
  missing: "The server does not have this",
  server: "Something went wrong on the server",
};

/** A failure, in the server's own words; `edit` leads to the expression that was refused. */
export function failed(error, { again, enterKey, edit = null }) {
  const namesRequest = error.request && error.message.includes(error.request);
  return stage(
    "failed",
    el("h2", {}, HEADS[error.kind] ?? "Something went wrong in this page"),
    el("p", { class: "reason" }, error.kind === "key" ? "Without it, nothing can be searched here." : error.message),
    error.request && error.kind === "server" && !namesRequest && el("p", { class: "muted" }, "Its log has this under the request id ", el("code", {}, error.request), "."),
    el("div", { class: "actions" }, error.kind === "key" ? button("Enter the key", enterKey) : edit ? button("Edit the expression", edit) : button("Try again", again)),
  );
}

const COMMANDS = ["embedkit index build notes/ --index notes.index", "embedkit serve notes.index"];

/** A server that was started without an index. */
export function noIndex({ models = [], rerankers = [] }) {
  const code = el("code", {}, COMMANDS.join("\n"));
  const copy = async (event) => {
    await navigator.clipboard.writeText(COMMANDS.join("\n"));
    event.target.textContent = "Copied";
  };
  const served = [...models, ...rerankers];
  return stage(
    "no-index",
    el("h2", {}, "There is no index here yet"),
    el("p", {}, "This server was started without one. Build an index of a folder or of files, then start the server with it:"),
    el("div", { class: "command" }, el("pre", { tabindex: "0", "aria-label": "Commands" }, code), navigator.clipboard && button("Copy", copy, "quiet")),
    el("p", { class: "muted" }, "Several indexes can be named, and are searched together or one by one."),
    served.length > 0 && el("p", { class: "muted" }, `It does serve ${served.join(", ")} to programs: `, el("a", { href: "openapi.json" }, "openapi.json"), " describes how."),
  );
}
