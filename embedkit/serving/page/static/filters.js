// The column of filters: which indexes, values and ranges of their fields, an expression for experts.

import { counted, el, spelt, whole } from "./dom.js";
import { chosenAsWhere, commonFields, range } from "./where.js";

const FEW = 6; // values that are shown before "all"
const OPEN = 4; // fields that are unfolded from the start
const LONG = 48; // characters of a value beyond which a field's values are texts, not choices
const TYPING = 350; // ms

/** Fields that make sense as choices: no long texts, something to choose from. */
export const choosable = (fields) =>
  fields.filter(({ kind, values, min, max }) =>
    kind === "number" ? min !== null && min < max : values.length > 0 && values.every((value) => spelt(value).length <= LONG),
  );

export class Filters {
  /** `change(patch)` is called with what was chosen. */
  constructor(form, change) {
    this.form = form;
    this.change = change;
    this.unfolded = new Map();
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Show a state; what had the focus has it again. While somebody types here, their box stays, but for `anew`. */
  draw(state, indexes, fields, { anew = false } = {}) {
    Object.assign(this, { state, indexes, fields });
    const active = this.form.contains(document.activeElement) ? document.activeElement : null;
    const focused = active?.id ?? "";
    if (!anew && active?.matches("textarea, input[type=number]")) {
      this.form.querySelector(".filter-foot").replaceWith(this.foot());
      return;
    }
    const shown = choosable(fields);
    const parts = [
      this.indexChoice(indexes),
      ...shown.map((field, number) => this.field(field, number)),
      this.hint(indexes, shown),
      this.ownExpression(indexes),
      this.foot(),
    ];
    this.form.replaceChildren(...parts.filter(Boolean));
    if (focused) document.getElementById(focused)?.focus();
  }

  /** Say in its place what is wrong with the expression; "" takes it back. */
  wrong(message) {
    const said = this.form.querySelector("#where-error");
    if (!said) return;
    said.textContent = message;
    this.form.querySelector("#where").setAttribute("aria-invalid", String(message !== ""));
    if (message) this.form.querySelector("details.own").open = true;
  }

  indexChoice(indexes) {
    if (indexes.length === 1) {
      const [only] = indexes;
      return el(
        "p",
        { class: "only" },
        el("strong", { dir: "auto" }, only.name),
        el("span", {}, counted(only.documents, "document")),
      );
    }
    const { indexes: chosen } = this.state;
    const boxes = indexes.map((index, number) =>
      this.box({
        id: `index-${number}`,
        label: index.name,
        count: whole(index.documents),
        checked: chosen.includes(index.name),
        toggle: (on) =>
          this.change({
            indexes: indexes.map(({ name }) => name).filter((name) => (name === index.name ? on : this.state.indexes.includes(name))),
          }),
      }),
    );
    const hint = chosen.length ? null : el("p", { class: "hint-line" }, "All are searched.");
    return el("fieldset", { class: "field" }, el("legend", {}, "Indexes"), boxes, hint);
  }

  /** Fields are offered only where all that is searched has them: say what to do where there are none. */
  hint(indexes, shown) {
    if (shown.length || indexes.length === 1 || !indexes.some((index) => choosable(commonFields([index])).length)) return null;
    return el("p", { class: "hint-line field" }, "Choose one index to filter by its fields.");
  }

  field(field, number) {
    const chosen = this.state.filters[field.name] ?? [];
    const open = this.unfolded.get(field.name) ?? (chosen.length > 0 || number < OPEN);
    const body = field.kind === "number" ? this.rangeOf(field, number, chosen) : this.valuesOf(field, number, chosen);
    return el(
      "details",
      { class: "field", open, ontoggle: (event) => this.unfolded.set(field.name, event.target.open) },
      el("summary", {}, el("span", { dir: "auto" }, field.name)),
      el("div", { role: "group", "aria-label": field.name }, body),
    );
  }

  valuesOf(field, number, chosen) {
    const values = field.kind === "flag" ? [true, false] : field.values;
    // What an address has chosen is shown even where it is none of the commonest values.
    const texts = [...new Set([...values.map(String), ...chosen])];
    const all = this.unfolded.get(`${field.name} all`) || texts.length <= FEW + 1;
    const shown = texts.filter((text, place) => all || place < FEW || chosen.includes(text));
    const boxes = shown.map((text, place) =>
      this.box({
        id: `field-${number}-${texts.indexOf(text)}`,
        label: field.kind === "flag" ? (text === "true" ? "yes" : "no") : text || "(empty)",
        checked: chosen.includes(text),
        toggle: (on) => this.choose(field.name, on ? [...this.chosen(field.name), text] : this.chosen(field.name).filter((each) => each !== text)),
      }),
    );
    if (shown.length === texts.length) return boxes;
    const more = () => {
      this.unfolded.set(`${field.name} all`, true);
      this.redraw();
      document.getElementById(`field-${number}-${FEW}`)?.focus();
    };
    return [boxes, el("button", { class: "more", type: "button", onclick: more }, `${texts.length - shown.length} more`)];
  }

  rangeOf(field, number, chosen) {
    const { low, high } = range(chosen[0]);
    let timer;
    const ends = ["low", "high"].map((end) => {
      const known = end === "low" ? field.min : field.max;
      const value = end === "low" ? low : high;
      const whole = Number.isInteger(field.min) && Number.isInteger(field.max);
      return el("input", {
        id: `field-${number}-${end}`,
        type: "number",
        step: whole ? "1" : "any",
        placeholder: String(known),
        value,
        "aria-label": `${field.name}, ${end === "low" ? "from" : "to"}`,
        oninput: () => {
          clearTimeout(timer);
          timer = setTimeout(apply, TYPING);
        },
        onchange: () => {
          clearTimeout(timer);
          apply();
        },
      });
    });
    const apply = () => {
      const text = ends.map((each) => each.value).join("..");
      const before = this.chosen(field.name)[0] ?? "..";
      if (text !== before) this.choose(field.name, text === ".." ? [] : [text]);
    };
    return el("div", { class: "range" }, ends[0], el("span", { "aria-hidden": "true" }, "–"), ends[1]);
  }

  ownExpression(indexes) {
    const apply = (event) => {
      const where = event.target.value.trim();
      if (where !== this.state.where) this.change({ where });
    };
    const input = el("textarea", {
      id: "where",
      rows: 2,
      spellcheck: "false",
      autocapitalize: "off",
      placeholder: "year > 2020 and lang = 'en'",
      "aria-describedby": "where-help where-error",
      onchange: apply,
      onkeydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        apply(event);
      },
    });
    input.value = this.state.where;
    const names = [...new Set(indexes.flatMap((index) => (index.fields ?? []).map(({ name }) => name)))];
    const help = names.length ? `Fields: ${names.slice(0, 12).map((name) => (name.length > 30 ? `${name.slice(0, 30)}…` : name)).join(", ")}${names.length > 12 ? " …" : ""}. ` : "";
    return el(
      "details",
      { class: "field own", open: this.state.where !== "" || this.unfolded.get(""), ontoggle: (event) => this.unfolded.set("", event.target.open) },
      el("summary", {}, "Expression"),
      el("label", { class: "hidden", for: "where" }, "Filter as an expression"),
      input,
      el("p", { class: "hint-line", id: "where-help" }, `${help}Enter applies it.`),
      el("p", { class: "wrong", id: "where-error", role: "alert" }),
    );
  }

  foot() {
    const { filters, where, indexes } = this.state;
    const made = chosenAsWhere(filters, this.fields);
    const edit = () => this.change({ filters: {}, where: where ? `(${made}) and (${where})` : made });
    const clear = () => this.change({ filters: {}, where: "", indexes: [] });
    return el(
      "div",
      { class: "filter-foot" },
      made && el("p", { class: "as-where" }, el("code", {}, made), el("button", { class: "more", type: "button", onclick: edit }, "Edit as an expression")),
      (made || where || indexes.length > 0) && el("button", { class: "more", id: "clear", type: "button", onclick: clear }, "Clear all filters"),
    );
  }

  box({ id, label, count, checked, toggle }) {
    return el(
      "label",
      { class: "check" },
      el("input", { id, type: "checkbox", checked, onchange: (event) => toggle(event.target.checked) }),
      el("span", { class: "check-name", dir: "auto" }, label),
      count && el("span", { class: "check-count" }, count),
    );
  }

  chosen(name) {
    return this.state.filters[name] ?? [];
  }

  choose(name, values) {
    const { [name]: _, ...others } = this.state.filters;
    this.change({ filters: values.length ? { ...others, [name]: values } : others });
  }

  redraw() {
    this.draw(this.state, this.indexes, this.fields);
  }
}
