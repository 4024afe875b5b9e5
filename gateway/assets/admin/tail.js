// The live tail of a group: an event stream of the page itself, which so is one of the group's members while it is shown.

import { query } from "./api.js";
import { byId } from "./dom.js";
import { addMessage, addNote, clearFeed } from "./feed.js";

let source;

export function tail(group) {
  stopTail();
  byId("feed-filter").value = "";
  clearFeed();
  const opened = new EventSource(`/admin/api/events${query({ group })}`);
  source = opened;
  told("connecting", "connecting");
  const on = (name, take) => opened.addEventListener(name, (event) => { if (opened === source) take(JSON.parse(event.data)); });
  on("subscribed", ({ recovered }) => {
    told("open", "listening");
    addNote(recovered === false ? "Listening again; what was missed is no longer kept." : `Listening to ${group}; this page is one of its members.`);
  });
  on("message", (frame) => {
    if (frame.type === "message") addMessage(frame);
    else if (frame.type === "gap") addNote(`Gap: ${frame.missed ?? "some"} messages missed (${String(frame.reason).replaceAll("_", " ")})`, "gap");
    else if (frame.type === "joined" || frame.type === "left") addNote(`${frame.member} ${frame.type}`);
  });
  opened.onerror = () => {
    if (opened !== source) return;
    const closed = opened.readyState === EventSource.CLOSED;
    told(closed ? "closed" : "waiting", closed ? "ended: the group cannot be listened to" : "cut, trying again");
  };
}

export function stopTail() {
  source?.close();
  source = undefined;
}

function told(state, text) {
  byId("tail-state").dataset.state = state;
  byId("tail-state").textContent = text;
}
