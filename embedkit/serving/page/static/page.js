// The page: its state goes into the address, from there into a request, and the answer onto the screen.

import * as api from "./api.js";
import { operate, showSide, showState } from "./bar.js";
import { counted, find } from "./dom.js";
import { Filters, choosable } from "./filters.js";
import { focusHit, listen } from "./keys.js";
import { Listing, docOf, sameDocument } from "./listing.js";
import { matchingWords } from "./marks.js";
import { Panel, isWide } from "./panel.js";
import { askKey, settle } from "./settings.js";
import * as stages from "./stages.js";
import { MODES, fresh, fromAddress, searchKey, toAddress } from "./state.js";
import { commonFields, whereOf } from "./where.js";

const TYPING = 120; // ms without a key before a search starts
const SETTLED = 1500; // ms after which what was typed is an entry of its own in the history
const NARROWS = ["q", "mode", "filters", "where", "indexes"]; // a change of these leaves weak hits out again

const box = find("query");
let state = fresh();
let server = null; // what GET /indexes said
let running = null; // AbortController of the request that is under way
let typing, settling, speaking;
let settled = true;

const chosenIndexes = () => {
  const all = server?.indexes ?? [];
  return state.indexes.length ? all.filter(({ name }) => state.indexes.includes(name)) : all;
};
const fields = () => commonFields(chosenIndexes());
/** The modes in which all of the indexes can be searched, and the one that is taken. */
const modes = () => chosenIndexes().reduce((left, index) => left.filter((mode) => index.modes.includes(mode)), MODES);
const modeTaken = () => (modes().includes(state.mode) ? state.mode : modes()[0]);
const kinds = () => [...new Set(chosenIndexes().map(({ kind }) => kind))];
const isFiltered = () => Object.keys(state.filters).length > 0 || state.where !== "" || state.indexes.length > 0;

/** Tell those who do not see the screen, once things have come to rest. */
function say(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => (find("live").textContent = text), 400);
}

// ---- the state and the address -------------------------------------------------------------------------------------------

/** Take a change of the search; it closes the document, whose hits are about to go. */
function change(patch, { push = true, wait = 0, byTyping = false } = {}) {
  const indexes = state.indexes;
  state = { ...state, ...patch, doc: null, view: "document" };
  if (!("all" in patch) && NARROWS.some((name) => name in patch)) state.all = false;
  if (state.indexes !== indexes) keepKnown();
  write(push, 0);
  panel.hide();
  if (!byTyping) controls();
  listing.markCurrent(null);
  run(wait);
}

/** Drop what cannot be searched, and say so: indexes that are not served, filters by fields that not all of them have. */
function keepKnown() {
  const notes = [];
  const names = server.indexes.map(({ name }) => name);
  for (const name of state.indexes.filter((each) => !names.includes(each))) notes.push(`There is no index “${name}” here.`);
  state.indexes = state.indexes.filter((name) => names.includes(name));
  const known = fields().map(({ name }) => name);
  for (const name of Object.keys(state.filters).filter((each) => !known.includes(each)))
    notes.push(`The filter by “${name}” is not used: not every index that is searched has this field.`);
  state.filters = Object.fromEntries(Object.entries(state.filters).filter(([name]) => known.includes(name)));
  listing.notes = notes;
}

/** `depth` counts the entries of the history that opened documents put on top of the hits. */
function write(push, depth) {
  const address = toAddress(state);
  if (push) history.pushState({ depth }, "", address);
  else history.replaceState({ depth }, "", address);
  entitle();
}

const entitle = () => (document.title = state.q ? `${state.q} – embedkit search` : "embedkit search");

function typed() {
  change({ q: box.value }, { push: settled, wait: TYPING, byTyping: true });
  settled = false;
  clearTimeout(settling);
  settling = setTimeout(() => (settled = true), SETTLED);
}

/** Take the state of the address: at the start, and when the history moves. */
function follow() {
  const inList = listing.root.contains(document.activeElement);
  const closed = panel.doc;
  state = fromAddress(location.search);
  keepKnown();
  settled = true;
  entitle();
  box.value = state.q;
  controls({ anew: true });
  run();
  listing.markCurrent(state.doc);
  if (state.doc) panel.show(state.doc, state.view, { focus: !(inList && isWide.matches) });
  else if (panel.isOpen) {
    panel.hide();
    const link = listing.linkOf(closed);
    if (link) focusHit(link);
    else box.focus();
  }
}

// ---- opening and closing a document --------------------------------------------------------------------------------------

function go(doc, view, { replace = false, focus = true } = {}) {
  const depth = history.state?.depth ?? 0;
  settled = true;
  state = { ...state, doc, view };
  write(!replace, replace ? depth : depth + 1);
  panel.show(doc, view, { focus });
  listing.markCurrent(doc);
  listing.linkOf(doc)?.closest("li").scrollIntoView({ block: "nearest" }); // the column of hits became narrower
}

function close() {
  const depth = history.state?.depth ?? 0;
  if (depth > 0) history.go(-depth); // then the history moves, and `follow` closes it
  else {
    state = { ...state, doc: null, view: "document" };
    write(false, 0);
    follow();
  }
  return true;
}

/** Open the next or the previous hit in the place of the one that is open. */
function step(by) {
  const at = listing.hits.findIndex((hit) => sameDocument(hit, state.doc));
  const next = at >= 0 && listing.hits[at + by];
  if (!next) return true;
  go(docOf(next), state.view, { replace: true, focus: !listing.root.contains(document.activeElement) });
  return true;
}

/** Return what filters by a value of the metadata; null where it is no filter. */
function filterBy(name, value) {
  const field = choosable(fields()).find((each) => each.name === name);
  if (!field || field.kind === "number" || value === null || typeof value === "object") return null;
  return () => change({ filters: { ...state.filters, [name]: [String(value)] } });
}

// ---- searching -----------------------------------------------------------------------------------------------------------

function run(wait = 0) {
  clearTimeout(typing);
  if (server === null) return;
  if (!state.q.trim() || !server.indexes.length) {
    stop();
    listing.stage(server.indexes.length ? stages.beginning(server.indexes) : stages.noIndex(server));
  } else if (listing.key === searchKey(state)) stop(); // it is on the screen
  else if (wait) typing = setTimeout(search, wait);
  else search();
}

function stop() {
  running?.abort();
  running = null;
  listing.busy(false);
}

async function search() {
  running?.abort(); // overtaken
  const mine = (running = new AbortController());
  const { signal } = mine;
  const asked = state;
  const wanted = {
    query: asked.q,
    mode: modeTaken(),
    index: asked.indexes.length ? asked.indexes : null,
    k: asked.k,
    where: whereOf(asked, fields()),
    rerank: asked.rerank === "1" ? true : asked.rerank || false,
    all: asked.all,
  };
  listing.busy(true);
  try {
    const found = await api.patiently(() => api.search(wanted, signal), { signal, wait: sayWait });
    if (running !== mine) return;
    stop();
    filters.wrong("");
    listing.draw(found, { ...asked, mode: wanted.mode, doc: state.doc }, server.indexes.length > 1);
    if (panel.isOpen) panel.refresh();
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    stop();
    unanswered(error);
  }
}

function sayWait(seconds) {
  const text = seconds ? `The server is busy. Asking again in ${counted(seconds, "second")}.` : "Asking again …";
  listing.say([text]);
  say("The server is busy. It is asked again shortly.");
}

function unanswered(error) {
  const inWhere = error.kind === "refused" && state.where !== "";
  if (server) filters.wrong(inWhere ? error.message : "");
  const again = () => (server ? run() : start());
  listing.stage(stages.failed(error, { again, enterKey: askKey, edit: inWhere ? editWhere : null }));
  say(error.message);
  if (error.kind === "key") askKey();
  else if (!error.kind) throw error; // a fault of this page: the console shows where
}

function editWhere() {
  showSide(true);
  find("where").focus();
}

// ---- all together --------------------------------------------------------------------------------------------------------

/** Make everything that chooses show the state. */
function controls({ anew = false } = {}) {
  showState({ ...state, mode: modeTaken() }, server.rerankers, modes(), kinds());
  if (server.indexes.length) filters.draw(state, server.indexes, fields(), { anew });
}

async function start() {
  listing.busy(true);
  try {
    server = await api.patiently(() => api.indexes(), { wait: sayWait });
  } catch (error) {
    listing.busy(false);
    return unanswered(error);
  }
  listing.busy(false);
  const has = server.indexes.length > 0;
  document.body.classList.remove("unready");
  document.body.classList.toggle("bare", !has);
  box.disabled = !has;
  find("bar").hidden = find("side").hidden = !has;
  follow();
  if (has && !state.doc && !state.q) box.focus();
}

const listing = new Listing({ change, go, say, isFiltered, modes });
const filters = new Filters(find("filters"), change);
const panel = new Panel(find("panel"), {
  query: () => state.q.trim(),
  words: (doc) => matchingWords(listing.hits.filter((hit) => sameDocument(hit, doc))),
  hitOf: (doc) => listing.hits.find((hit) => sameDocument(hit, doc)),
  href: (doc, view) => toAddress({ ...state, doc, view }),
  askKey,
  go,
  close,
  step,
  filterBy,
  say,
});

listen({
  panel,
  close,
  step,
  follow: (link) => go(docOf(listing.hitOfLink(link)), state.view, { replace: true, focus: false }),
  enter: () => {
    settled = true;
    run();
  },
});
settle(start);
operate(change);

box.addEventListener("input", (event) => event.isComposing || typed());
box.addEventListener("compositionend", typed);
box.addEventListener("blur", () => (settled = true));
find("search").addEventListener("submit", (event) => event.preventDefault());
find("home").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || !server?.indexes.length) return;
  event.preventDefault();
  box.value = "";
  change(fresh());
  box.focus();
});
addEventListener("popstate", () => server && follow());
addEventListener("online", () => listing.root.querySelector(".failed .primary")?.click());
start();
