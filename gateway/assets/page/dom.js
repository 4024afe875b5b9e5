// Small helpers for the page. Text from outside only ever becomes text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element: `el("button", { class: "link", onclick: stop }, "Stop")`. Children are nodes or text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

/** Whether a string is a valid name of a group; if not, why. */
export function nameProblem(name) {
  if (name === "") return "A group needs a name.";
  if (name.length > 99) return "A group name has at most 99 characters.";
  const bad = name.match(/[^A-Za-z0-9._-]/u);
  if (bad) return `“${bad[0]}” cannot be in a group name; letters, digits, “-”, “_” and “.” can.`;
  return "";
}

/** A cell or a number for reading: thousands grouped, missing values as a dash. */
export function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 6 });
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}

/** A name as people read it: `avg_delay_min` is “avg delay (min)”, `late_percent` is “late (%)”. */
export const spoken = (name) => String(name).replace(/_min$/, " (min)").replace(/_percent$/, " (%)").replaceAll("_", " ");

/** An id as a person can compare it: its last characters, which are the random ones. */
export const shortId = (id) => id.slice(-6);

export function duration(ms) {
  if (ms < 1) return "under 1 ms";
  if (ms < 10) return `${ms.toFixed(1).replace(".0", "")} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

export const clock = (date = new Date()) => date.toLocaleTimeString("en-GB", { hour12: false });

let toastTimer;

/** Says something for a few seconds; screen readers hear it. */
export function toast(text, kind = "info") {
  const node = byId("toast");
  node.textContent = text;
  node.dataset.kind = kind;
  node.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => node.classList.remove("shown"), kind === "error" ? 8000 : 4000);
}
