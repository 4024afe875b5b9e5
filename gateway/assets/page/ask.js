// The questions: one radio button each, and a form for the parameters of the chosen one.

import { byId, el, spoken } from "./dom.js";

let queries = [];
let chosen;

/** Loads the description of the queries and builds the form. */
export async function loadQueries() {
  const answer = await fetch("/demo/queries.json");
  if (!answer.ok) throw new Error(`the questions cannot be loaded: ${answer.status}`);
  queries = await answer.json();
  const start = queries.find((query) => query.name === "worst_routes") ?? queries[0];
  const rows = queries.map((query) => el("label", {},
    el("input", { type: "radio", name: "query", value: query.name, checked: query === start, onchange: () => choose(query) }),
    el("span", {}, query.title || spoken(query.name)),
    el("code", { title: `queryset_id ${query.id}` }, String(query.id))));
  byId("questions").replaceChildren(el("legend", { class: "hidden" }, "Questions"), ...rows);
  if (start) choose(start);
}

export const titleOf = (name) => queries.find((query) => query.name === name)?.title || spoken(name ?? "");

function choose(query) {
  chosen = query;
  byId("params").replaceChildren(...Object.entries(query.params ?? {}).map(([name, param]) => field(name, param)));
}

function field(name, param) {
  const id = `param-${name}`;
  return el("div", {}, el("label", { for: id }, spoken(name)), control(id, name, param));
}

function control(id, name, param) {
  const common = { id, name, "data-type": param.type };
  if (param.enum || param.type === "boolean") {
    const values = param.enum ?? [true, false];
    return el("select", common, ...values.map((value) => el("option", { value: JSON.stringify(value), selected: value === param.default }, String(value))));
  }
  const number = param.type === "integer" || param.type === "real";
  return el("input", {
    ...common, type: number ? "number" : "text", value: param.default, min: number ? param.min : undefined,
    max: number ? param.max : undefined, step: param.type === "integer" ? 1 : "any",
    minlength: number ? undefined : param.min, maxlength: number ? undefined : param.max,
    required: param.default === undefined, autocomplete: "off",
  });
}

/** What is asked: `{ name, params, audience }`. Throws an Error for a person if a parameter is not valid. */
export function asked() {
  if (!chosen) throw new Error("The questions are not loaded yet.");
  const params = {};
  for (const input of byId("params").querySelectorAll("input, select")) {
    const { name } = input;
    if (input.tagName === "SELECT") params[name] = JSON.parse(input.value);
    else if (!input.checkValidity()) { input.focus(); throw new Error(`${spoken(name)}: ${input.validationMessage}`); }
    else if (input.value === "") continue;
    else params[name] = input.type === "number" ? input.valueAsNumber : input.value;
  }
  const audience = new FormData(byId("ask-form")).get("audience");
  return { name: chosen.name, params, audience };
}
