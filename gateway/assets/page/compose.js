// Sending a message by hand, and the list of groups.

import { byId, el, nameProblem } from "./dom.js";

const MESSAGE_BYTES_MAX = 65_536;
const EXAMPLE = '{"type": "chat.message", "text": "Hello from a browser"}';

/** Wires the form; `send(group, message)` is called with what is valid. */
export function setUpSend(send) {
  const text = byId("send-json");
  text.value = EXAMPLE;
  const show = (problem) => {
    byId("send-problem").textContent = problem;
    text.toggleAttribute("aria-invalid", problem !== "");
  };
  text.addEventListener("input", () => { if (byId("send-problem").textContent) show(problemOf(text.value).problem ?? ""); });
  byId("send-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const group = byId("send-group").value.trim();
    const { problem, message } = problemOf(text.value);
    show(nameProblem(group) || problem || "");
    if (byId("send-problem").textContent) return;
    try {
      await send(group, message);
    } catch (error) {
      show(error.message);
    }
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("send-form").requestSubmit();
  });
}

/** The message in a text, or what is wrong with it and what to do. */
function problemOf(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch (error) {
    return { problem: `Not JSON: ${error.message}. Names and texts need double quotes, and no comma follows the last one.` };
  }
  if (typeof message !== "object" || message === null || Array.isArray(message)) {
    return { problem: 'A message is a JSON object, such as {"type": "chat.message"}.' };
  }
  if (typeof message.type !== "string" || message.type === "") {
    return { problem: 'A message needs a “type” that is a text, such as "type": "chat.message"; receivers go by it.' };
  }
  if (message.type.startsWith("job.")) {
    return { problem: "Types that begin with “job.” are the gateway's own; choose another." };
  }
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > MESSAGE_BYTES_MAX) return { problem: `The message has ${bytes} bytes; at most ${MESSAGE_BYTES_MAX} are taken.` };
  return { message };
}

/** Wires the groups; `subscribe(group)` and `unsubscribe(group)` reject with an Error for a person. */
export function setUpGroups(subscribe, unsubscribe) {
  const input = byId("subscribe-group");
  const attempt = async (action, group) => {
    try {
      byId("subscribe-problem").textContent = "";
      await action(group);
      return true;
    } catch (error) {
      byId("subscribe-problem").textContent = error.message;
      return false;
    }
  };
  byId("subscribe-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const group = input.value.trim();
    const problem = nameProblem(group);
    byId("subscribe-problem").textContent = problem;
    if (!problem && await attempt(subscribe, group)) input.value = "";
  });
  return (groups) => {
    const chips = [...groups].sort().map((group) => el("li", {}, el("code", {}, group),
      el("button", { type: "button", "aria-label": `Unsubscribe from ${group}`, title: "Unsubscribe", onclick: () => attempt(unsubscribe, group) }, "×")));
    byId("groups").replaceChildren(...(chips.length ? chips : [el("li", { class: "none" }, "none: you hear nothing")]));
    byId("known-groups").replaceChildren(...[...groups].map((group) => el("option", { value: group })));
  };
}
