// The opened document: its text with the passage marked, why it matched, what is similar.

import { documentOf, explain, patiently, similar } from "./api.js";
import { counted, el, find, icon } from "./dom.js";
import { hitItem, titleOf } from "./hits.js";
import { documentView } from "./reading.js";
import { failed, waiting } from "./stages.js";
import { termsView } from "./terms.js";
import { whyView } from "./why.js";

const VIEWS = { document: "Document", why: "Why it matched", similar: "Similar" };
const PATIENCE = 150; // ms before grey lines are drawn

export const isWide = matchMedia("(min-width: 1180px)");
const same = (one, other) => one && other && one.id === other.id && one.index === other.index;

export class Panel {
  /**
   * `host` has what concerns the whole page: query(), words(), hitOf(doc), href(doc, view), go(doc, view, how), close(), step(by),
   * filterBy(name, value) or null where the field is no filter, askKey(), say(text).
   */
  constructor(dialog, host) {
    Object.assign(this, { dialog, host, doc: null, view: "document", opener: null });
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      host.close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && host.close()); // beside the sheet
    isWide.addEventListener("change", () => {
      if (!dialog.open) return;
      dialog.close();
      this.raise(dialog.contains(document.activeElement));
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Show a passage; `focus` says that the keyboard goes there, too. */
  async show(doc, view, { focus = true } = {}) {
    const isNew = !same(doc, this.doc);
    const moved = isNew || doc.passage !== this.doc.passage;
    if (moved) this.loading?.abort();
    if (isNew) this.document = null;
    if (moved) this.cache = {};
    Object.assign(this, { doc, view });
    this.head();
    this.raise(focus);
    await this.fill();
  }

  raise(focus) {
    const before = document.activeElement;
    if (!this.dialog.open) {
      // Not show(): that focuses the first button, and scrolls the page to it.
      if (isWide.matches) this.dialog.setAttribute("open", "");
      else this.dialog.showModal();
      document.body.classList.add("reading");
    }
    if (focus || (!isWide.matches && !this.dialog.contains(before))) find("panel-body").focus({ preventScroll: true });
    else before?.focus({ preventScroll: true });
  }

  hide() {
    this.loading?.abort();
    this.doc = null;
    this.document = null;
    if (this.dialog.open) this.dialog.close();
    document.body.classList.remove("reading");
    this.dialog.replaceChildren();
  }

  head() {
    const { doc, host, view } = this;
    const hit = host.hitOf(doc);
    const title = this.document?.title || (hit ? titleOf(hit) : doc.id);
    const crumb = [doc.index, this.place()?.where ?? hit?.where ?? doc.id].filter((part) => part && part !== title);
    const tool = (label, name, act, more = {}) =>
      el("button", { class: "tool", type: "button", title: label, onclick: act, ...more }, icon(name), el("span", { class: "hidden" }, label));
    const listed = hit !== undefined;
    const inTabs = document.activeElement?.getAttribute("role") === "tab";
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.id : "";
    const copy = async (event) => {
      const button = event.currentTarget;
      await navigator.clipboard.writeText(new URL(host.href(this.doc, this.view), location.href).href);
      button.classList.add("done");
      host.say("The link was copied");
    };
    const tabs = Object.entries(VIEWS).map(([name, label]) =>
      el(
        "button",
        {
          role: "tab",
          id: `tab-${name}`,
          type: "button",
          "aria-selected": String(name === view),
          "aria-controls": "panel-body",
          tabindex: name === view ? null : "-1",
          onclick: () => host.go(this.doc, name, { replace: true, focus: false }),
        },
        label,
      ),
    );
    const steer = (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      const names = Object.keys(VIEWS);
      const next = names[(names.indexOf(this.view) + by + names.length) % names.length];
      event.preventDefault();
      host.go(this.doc, next, { replace: true, focus: false });
      find(`tab-${next}`).focus();
    };
    const body = this.dialog.querySelector("#panel-body") ?? el("div", { id: "panel-body", class: "panel-body", role: "tabpanel", tabindex: "0" });
    body.setAttribute("aria-labelledby", `tab-${view}`);
    this.dialog.replaceChildren(
      el(
        "div",
        { class: "sheet" },
        el(
          "header",
          { class: "panel-head" },
          el("div", { class: "panel-name" }, el("p", { class: "crumb" }, crumb.map((part) => el("bdi", {}, part))), el("h2", { id: "panel-title", dir: "auto" }, title)),
          el(
            "div",
            { class: "panel-tools" },
            listed && tool("Previous hit (k)", "up", () => host.step(-1), { id: "panel-previous" }),
            listed && tool("Next hit (j)", "down", () => host.step(1), { id: "panel-next" }),
            navigator.clipboard && tool("Copy the link to this passage", "link", copy, { id: "panel-link" }),
            tool("Close (Esc)", "close", () => host.close(), { id: "panel-close" }),
          ),
        ),
        el("div", { class: "tabs", role: "tablist", "aria-label": "Views of the document", onkeydown: steer }, tabs),
        body,
      ),
    );
    if (focused) find(inTabs ? `tab-${view}` : focused)?.focus({ preventScroll: true });
  }

  /** The hits have come after the document: take from them what is marked, and what is before and after. */
  refresh() {
    this.head();
    if (this.view === "document" && this.cache.document) {
      const body = find("panel-body");
      const at = body.scrollTop;
      this.put((this.cache.document = this.text()));
      body.scrollTop = at;
    }
  }

  place() {
    return this.document?.passages?.find(({ passage }) => passage === this.doc.passage);
  }

  async fill() {
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    const ready = this.cache[this.view];
    if (ready) return this.put(ready);
    const timer = setTimeout(() => this.put(waiting()), PATIENCE);
    const wait = (seconds) => this.put(el("p", { class: "note" }, seconds ? `The server is busy. Asking again in ${counted(seconds, "second")}.` : "Asking again …"));
    try {
      const made = await patiently(() => this.make(this.view, loading.signal), { signal: loading.signal, wait });
      if (loading.signal.aborted) return;
      this.cache[this.view] = made;
      this.put(made);
    } catch (error) {
      if (error.name === "AbortError" || loading.signal.aborted) return;
      this.put(failed(error, { again: () => this.fill(), enterKey: this.host.askKey }));
      if (error.kind === "key") this.host.askKey();
    } finally {
      clearTimeout(timer);
    }
  }

  put(node) {
    const body = find("panel-body");
    body.replaceChildren(node);
    const passage = node.querySelector?.(".passage");
    body.scrollTop = 0;
    // What stands near the top is seen without scrolling; above the rest, two lines of what goes before are left.
    const top = passage ? passage.getBoundingClientRect().top - body.getBoundingClientRect().top : 0;
    if (top > body.clientHeight / 2) body.scrollTop = top - 72;
  }

  async make(view, signal) {
    const { index, id, passage } = this.doc;
    if (!this.document) {
      const document = await documentOf(index, id, signal);
      if (signal.aborted) return null;
      this.document = document;
      this.head();
    }
    if (view === "why") {
      const query = this.host.query();
      if (!query) return el("p", { class: "muted" }, "There is no query to compare this passage with. Type one into the search box.");
      const explained = await explain(query, index, id, passage, signal);
      return explained.kind === "sparse" ? termsView(explained) : whyView(explained);
    }
    if (view === "similar") return this.similarView((await similar(index, id, passage, signal)).hits);
    return this.text();
  }

  text() {
    const { host, doc } = this;
    return documentView(this.document, this.place(), {
      words: host.words(doc),
      filterBy: host.filterBy,
      go: (passage) => host.go({ ...doc, passage }, "document", { replace: true }),
    });
  }

  similarView(hits) {
    if (!hits.length) return el("p", { class: "muted" }, "Nothing is similar to this passage.");
    const items = hits.map((hit) => {
      const doc = { index: hit.index, id: hit.id, passage: hit.passage };
      return hitItem(hit, { href: this.host.href(doc, "document"), open: () => this.host.go(doc, "document", {}), several: false });
    });
    return el("div", {}, el("p", { class: "muted" }, "Nearest to this passage by meaning:"), el("ol", { class: "hits compact" }, items));
  }
}
