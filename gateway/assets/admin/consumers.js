// Consumers: how much they have to do, pause and resume; and the schedules.

import { api, at } from "./api.js";
import { byId, el, shown, toast } from "./dom.js";
import { action, number, repeat, showRows, when } from "./views.js";

const EVERY_MS = 2000;

let reading;

export function showConsumers() {
  reading = repeat(read, EVERY_MS, (error) => toast(error.message, "error"));
}

export function hideConsumers() {
  reading?.stop();
  reading = undefined;
}

async function read() {
  const [{ consumers }, { schedules }] = await Promise.all([api("consumers"), api("schedules")]);
  showRows(byId("consumers-rows"), consumers, ({ name }) => name, consumer, "no consumer is configured ([[consumer]])");
  showRows(byId("schedules-rows"), schedules, ({ name }) => name, ({ name, cron, timezone, group, last, next }) =>
    [el("th", { scope: "row" }, name), el("span", {}, el("code", {}, cron), ` ${timezone}`), group, when(last), when(next)], "no schedule is configured ([[schedule]])");
}

function consumer({ name, group, type, run, concurrency, rate, paused, running, ready, scheduled, dead }) {
  const [word, does] = paused ? ["Resume", "resume"] : ["Pause", "pause"];
  const change = async () => {
    await api(at("consumers", name, does), { method: "POST" });
    toast(paused ? `${name} claims again` : `${name} is paused: what runs, ends; what comes, waits`);
    reading?.now();
  };
  return [
    el("th", { scope: "row" }, name), el("span", { class: "badge", "data-state": paused ? "scheduled" : "succeeded" }, paused ? "paused" : "works"),
    el("span", {}, el("code", {}, type), " in ", group), run, number(`${shown(running)} of ${shown(concurrency)}`), rate ?? "–", number(ready), number(scheduled), number(dead),
    action(word, change, { class: "link", "aria-label": `${word} ${name}` }),
  ];
}
