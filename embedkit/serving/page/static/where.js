// Filters as an expression of the server's language, and the fields that can be filtered.

const PLAIN = /^[A-Za-z_][A-Za-z0-9_]*$/;
const TAKEN = new Set(
  "and or not in like is null true false between contains glob matches id title text source".split(" "),
);

const named = (name) => (PLAIN.test(name) && !TAKEN.has(name.toLowerCase()) ? name : `"${name.replaceAll('"', '""')}"`);
const literal = (value) => (typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value));

/** The fields that every one of these indexes has, each with the values and the range of all of them. */
export function commonFields(indexes) {
  if (!indexes.length) return [];
  return (indexes[0].fields ?? []).flatMap((first) => {
    const same = indexes.map((index) => (index.fields ?? []).find(({ name }) => name === first.name));
    if (same.some((field) => field?.kind !== first.kind)) return [];
    const values = [...new Set(same.flatMap((field) => field.values ?? []))];
    const ends = (end, choose) => {
      const known = same.map((field) => field[end]).filter(Number.isFinite);
      return known.length ? choose(...known) : null;
    };
    return [{ name: first.name, kind: first.kind, values, min: ends("min", Math.min), max: ends("max", Math.max) }];
  });
}

export function range(text) {
  const [low = "", high = ""] = (text ?? "").split("..");
  const number = (part) => (part !== "" && Number.isFinite(Number(part)) ? Number(part) : null);
  return { low: number(low), high: number(high) };
}

function condition(field, chosen) {
  const name = named(field.name);
  if (field.kind === "number") {
    const { low, high } = range(chosen[0]);
    if (low !== null && high !== null) return `${name} between ${low} and ${high}`;
    if (low !== null) return `${name} >= ${low}`;
    return high !== null ? `${name} <= ${high}` : "";
  }
  // The address holds texts; the field knows which of its values are numbers or true and false.
  const values = chosen.map((text) => field.values.find((value) => String(value) === text) ?? text);
  if (field.kind === "list") return values.map((value) => `${name} contains ${literal(value)}`).join(" or ");
  if (field.kind === "flag") {
    const flags = chosen.filter((text) => text === "true" || text === "false");
    return flags.map((flag) => `${name} = ${flag}`).join(" or ");
  }
  return values.length === 1 ? `${name} = ${literal(values[0])}` : `${name} in (${values.map(literal).join(", ")})`;
}

/** The filters of a state, without its own expression. */
export function chosenAsWhere(filters, fields) {
  const parts = Object.entries(filters).flatMap(([name, chosen]) => {
    const field = fields.find((each) => each.name === name);
    const made = field && chosen.length ? condition(field, chosen) : "";
    return made ? [made] : [];
  });
  return parts.length === 1 ? parts[0] : parts.map((part) => (part.includes(" or ") ? `(${part})` : part)).join(" and ");
}

export function whereOf(state, fields) {
  const chosen = chosenAsWhere(state.filters, fields);
  const own = state.where.trim();
  if (!chosen || !own) return chosen || own || null;
  return `(${chosen}) and (${own})`;
}
