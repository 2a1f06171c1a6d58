// What is searched and what is open, as the address of the page holds it.

export const MODES = ["hybrid", "dense", "text"];
const VIEWS = ["document", "why", "similar"];
export const MOST = 200;

export const fresh = () => ({
  q: "",
  mode: "hybrid",
  rerank: "", // "", "1" for the server's own choice, or a name
  k: 10,
  indexes: [], // none: all
  filters: {}, // field -> chosen values as texts, or ["low..high"] of a number
  where: "",
  all: false,
  doc: null, // {index, id, passage}
  view: "document",
});

/** Read the query string of an address; what it does not know stays as it is by default. */
export function fromAddress(text) {
  const given = new URLSearchParams(text);
  const state = fresh();
  state.q = given.get("q") ?? "";
  if (MODES.includes(given.get("mode"))) state.mode = given.get("mode");
  state.rerank = given.get("rerank") ?? "";
  const k = Math.trunc(Number(given.get("k")));
  if (k > 0) state.k = Math.min(k, MOST);
  state.indexes = given.getAll("index");
  for (const [name, value] of given) if (name.startsWith("f.")) (state.filters[name.slice(2)] ??= []).push(value);
  state.where = given.get("where") ?? "";
  state.all = given.has("all");
  if (given.has("doc") && given.has("in"))
    state.doc = { index: given.get("in"), id: given.get("doc"), passage: Math.trunc(Number(given.get("passage"))) || 0 };
  if (VIEWS.includes(given.get("view"))) state.view = given.get("view");
  return state;
}

/** Write a state as an address: only what differs from the default. */
export function toAddress(state) {
  const made = new URLSearchParams();
  if (state.q) made.set("q", state.q);
  if (state.mode !== "hybrid") made.set("mode", state.mode);
  if (state.rerank) made.set("rerank", state.rerank);
  if (state.k !== 10) made.set("k", state.k);
  for (const name of state.indexes) made.append("index", name);
  for (const [name, values] of Object.entries(state.filters)) for (const value of values) made.append(`f.${name}`, value);
  if (state.where) made.set("where", state.where);
  if (state.all) made.set("all", "1");
  if (state.doc) {
    made.set("doc", state.doc.id);
    made.set("in", state.doc.index);
    if (state.doc.passage) made.set("passage", state.doc.passage);
    if (state.view !== "document") made.set("view", state.view);
  }
  const text = made.toString();
  return text ? `?${text}` : location.pathname;
}

/** The part of a state that decides the hits. */
export const searchKey = (state) => toAddress({ ...state, doc: null });
