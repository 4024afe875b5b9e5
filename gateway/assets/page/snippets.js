// The line that does the same from a shell and from Python.

import { byId, el, toast } from "./dom.js";

/** Shows how to do what was just done: a message to a group, or a query for the asker alone. */
export function showSnippets(what, action) {
  byId("code-what").textContent = what;
  const lines = [["curl", curl(action)]];
  if (action.group) lines.push(["Python, as in a Django view", python(action)]);
  byId("code").replaceChildren(...lines.map(([title, text]) => snippet(title, text)));
}

function snippet(title, text) {
  const code = el("code", {}, text);
  const copy = el("button", { type: "button", class: "copy", "aria-label": `Copy the ${title} line` }, "Copy");
  copy.addEventListener("click", () => copyText(text, code, copy));
  return el("div", { class: "snippet" }, el("div", { class: "snippet-head" }, el("span", {}, title), copy), el("pre", { tabindex: "0" }, code));
}

async function copyText(text, code, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } catch {
    // No permission, or no secure context: select it, so that the keyboard can copy it.
    getSelection().selectAllChildren(code);
    toast("Selected; press Ctrl+C to copy");
  }
}

function curl({ group, message, query, params }) {
  const path = group ? `/v1/groups/${group}/send` : `/v1/queries/${query}`;
  const wait = group ? "" : " \\\n  -H 'prefer: wait=10'";
  const body = JSON.stringify(group ? message : params);
  return `curl ${location.origin}${path} \\\n  -H 'content-type: application/json'${wait} \\\n  -d ${shellQuoted(body)}`;
}

function python({ group, message }) {
  return `httpx.post(\n    "${location.origin}/v1/groups/${group}/send",\n    json=${literal(message)},\n)`;
}

const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${literal(item)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
