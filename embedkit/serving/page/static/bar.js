// The line of controls above the hits, and where the filters stand.

import { hasKey } from "./api.js";
import { counted, find } from "./dom.js";

const isNarrow = matchMedia("(max-width: 899px)");

const MEANING = { dense: "vectors", "multi-vector": "a vector for each token", sparse: "weights of terms" };

/** Make the controls show a state, whose indexes are searched in some modes and are of some kinds. */
export function showState(state, rerankers, modes, kinds) {
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.checked = input.value === state.mode;
    input.disabled = !modes.includes(input.value);
  }
  find("mode-dense").title = modes.includes("dense")
    ? `By meaning alone: ${kinds.map((kind) => MEANING[kind] ?? kind).join(", ")}`
    : "What is searched was built from ready vectors: it is found by words";
  const k = find("k");
  if (![...k.options].some(({ value }) => value === String(state.k))) k.add(new Option(counted(state.k, "hit"), state.k));
  k.value = String(state.k);
  find("rerank").checked = state.rerank !== "";
  find("rerank").disabled = !rerankers.length;
  find("rerank-box").title = rerankers.length ? "Have a model read the best hits again, with the query" : "This server has no reranker";
  const choice = find("reranker");
  choice.hidden = rerankers.length < 2 || !state.rerank;
  choice.replaceChildren(...rerankers.map((name) => new Option(name, name)));
  if (rerankers.includes(state.rerank)) choice.value = state.rerank;
  find("forget").hidden = !hasKey();
  const count = Object.keys(state.filters).length + (state.where ? 1 : 0) + (state.indexes.length ? 1 : 0);
  find("side-count").hidden = count === 0;
  find("side-count").textContent = count;
}

/** Where there is no room beside the hits, the filters stand under the button that unfolds them. */
function placeSide() {
  const side = find("side");
  side.setAttribute("role", isNarrow.matches ? "region" : "complementary");
  if (isNarrow.matches) find("bar").after(side);
  else find("frame").prepend(side);
}

export function showSide(open) {
  find("side-open").setAttribute("aria-expanded", String(open));
  find("side").classList.toggle("open", open);
}

/** `change(patch)` is called with what was chosen. */
export function operate(change) {
  placeSide();
  isNarrow.addEventListener("change", placeSide);
  find("side-open").addEventListener("click", ({ currentTarget }) => showSide(currentTarget.getAttribute("aria-expanded") !== "true"));
  find("bar").addEventListener("change", ({ target }) => {
    if (target.name === "mode") change({ mode: target.value });
    else if (target.id === "k") change({ k: Number(target.value) });
    else if (target.id === "rerank") change({ rerank: target.checked ? "1" : "" });
    else if (target.id === "reranker") change({ rerank: target.value });
  });
}
