// The hits on the screen, or what stands in their place.

import { counted, el, find, ms } from "./dom.js";
import { hitItem } from "./hits.js";
import { focusHit } from "./keys.js";
import * as stages from "./stages.js";
import { MOST, searchKey, toAddress } from "./state.js";

const PATIENCE = 150; // ms before waiting is shown
const SIZES = [10, 20, 50, 100, 200];

export const docOf = (hit) => ({ index: hit.index, id: hit.id, passage: hit.passage });
export const sameDocument = (one, other) => Boolean(one && other && one.id === other.id && one.index === other.index);

export class Listing {
  /** `host`: change(patch), go(doc, view, how), say(text), isFiltered(). */
  constructor(host) {
    this.host = host;
    this.root = find("results");
    this.notes = [];
    this.clear();
  }

  /** Forget the hits; `key` is the search that they were of. */
  clear() {
    Object.assign(this, { hits: [], key: null, base: null });
  }

  links() {
    return [...this.root.querySelectorAll("a.hit-title")];
  }

  linkOf(doc) {
    return this.links().find((_, place) => sameDocument(this.hits[place], doc));
  }

  hitOfLink(link) {
    return this.hits[this.links().indexOf(link)];
  }

  /** Show that an answer is waited for, once that has taken long enough to be noticed. */
  busy(on) {
    clearTimeout(this.patience);
    this.root.setAttribute("aria-busy", String(on));
    if (!on) {
      find("progress").hidden = true;
      this.root.classList.remove("stale");
      return;
    }
    this.patience = setTimeout(() => {
      find("progress").hidden = false;
      if (this.hits.length) this.root.classList.add("stale");
      else this.root.replaceChildren(stages.waiting());
    }, PATIENCE);
  }

  /** Put something in the place of the hits. */
  stage(node) {
    this.clear();
    find("status").hidden = true;
    this.say([]);
    this.root.replaceChildren(node);
  }

  /** Lines above the hits: what this page left out of the search, what the server has to say. */
  say(texts) {
    find("notes").replaceChildren(...[...this.notes, ...texts].map((text) => el("p", { class: "note", dir: "auto" }, text)));
  }

  draw(found, state, several) {
    const { hits } = found;
    const base = searchKey({ ...state, k: 0 });
    const isMore = base === this.base && document.activeElement?.classList.contains("more-hits");
    const had = this.hits.length;
    Object.assign(this, { hits, key: searchKey(state), base });
    this.say(found.notes ?? []);
    find("status").hidden = !hits.length;
    find("status").replaceChildren(...this.status(found, state));
    const leftOut = found.left_out ? `, ${counted(found.left_out, "weak hit")} left out` : "";
    this.host.say(hits.length ? `${counted(hits.length, "hit")}${leftOut}` : "Nothing found");
    if (!hits.length) return this.root.replaceChildren(this.nothing(found, state));
    const items = hits.map((hit) =>
      hitItem(hit, {
        href: toAddress({ ...state, doc: docOf(hit), view: "document" }),
        open: () => this.host.go(docOf(hit), "document"),
        several,
      }),
    );
    const parts = [el("h2", { class: "hidden" }, "Hits"), el("ol", { class: "hits" }, items), this.more(state), this.models(found, state)];
    this.root.replaceChildren(...parts.filter(Boolean));
    this.markCurrent(state.doc);
    if (isMore && had < hits.length) focusHit(this.links()[had]);
  }

  markCurrent(doc) {
    this.links().forEach((link, place) => {
      const current = sameDocument(this.hits[place], doc);
      link.closest("li").classList.toggle("current", current);
      if (current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }

  status({ hits, left_out: leftOut, took_ms: took }, { all }) {
    const parts = Object.entries({ embedding: took?.embed, search: took?.search, reranking: took?.rerank }).filter(([, time]) => time > 0);
    const spelt = parts.map(([name, time]) => `${name} ${ms(time)}`).join(", ");
    const weak = hits.filter((hit) => hit.weak).length;
    const button = (label, on) => el("button", { class: "more", id: "weak", type: "button", onclick: () => this.host.change({ all: on }) }, label);
    return [
      el("p", {}, el("strong", {}, counted(hits.length, "hit")), took && el("span", {}, ` in ${ms(took.total)} ms`), took && el("span", { class: "took-parts" }, spelt)),
      leftOut > 0 && el("p", { class: "weak-line" }, `${counted(leftOut, "weak hit")} left out `, button(leftOut === 1 ? "Show it" : "Show them", true)),
      all && el("p", { class: "weak-line" }, weak ? `${counted(weak, "weak hit")} among them ` : "Weak hits are shown, too ", button("Leave out", false)),
    ].filter(Boolean);
  }

  nothing(found, { mode }) {
    const { change, isFiltered, modes } = this.host;
    return stages.nothing({
      query: found.query,
      leftOut: found.left_out ?? 0,
      filtered: isFiltered(),
      mode,
      showAll: () => change({ all: true }),
      clear: () => change({ filters: {}, where: "", indexes: [] }),
      hybrid: modes().includes("hybrid") && (() => change({ mode: "hybrid" })),
    });
  }

  more({ k }) {
    const size = SIZES.find((each) => each > k);
    if (this.hits.length < k || k >= MOST || !size) return null;
    return el("button", { class: "quiet more-hits", type: "button", onclick: () => this.host.change({ k: size }) }, "More hits");
  }

  models({ models = {}, reranker }, { mode }) {
    const names = mode === "text" ? [] : [...new Set(Object.values(models))];
    const parts = [names.length && `Encoded by ${names.join(", ")}.`, reranker && `Reranked by ${reranker}.`].filter(Boolean);
    return parts.length ? el("p", { class: "models" }, parts.join(" ")) : null;
  }
}
