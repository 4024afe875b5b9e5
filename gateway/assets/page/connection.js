// The WebSocket: protocol groupcast.v1, answers matched by id, reconnecting with full jitter.

// Close codes after which the same request may succeed later. 3000 needs a new token, the others need a person.
const RECONNECT = new Set([1001, 1005, 1006, 1011, 1012, 1013, 3008]);
const REASONS = {
  1000: "closed normally", 1002: "protocol error", 1003: "binary data not taken", 1007: "text was not UTF-8",
  1008: "closed by policy, or disconnected by an operator", 1009: "a message was too big", 3000: "not authenticated",
  3003: "not allowed",
};
const BASE_MS = 500;
const LONGEST_MS = 30_000;
const PING_EVERY_MS = 20_000;
const FIRST_PING_MS = 1500;
const ANSWER_WITHIN_MS = 10_000;

/**
 * Events: "state" {state, detail, retryAt}, "push" {frame}, "welcome" {frame, lostMs}, "latency" {ms}.
 * `state` is connecting, open, waiting or closed.
 */
export class Connection extends EventTarget {
  #socket; #waiting = new Map(); #nextId = 1; #attempt = 0; #retry; #ping; #atLeastMs = 0; #lostAt;

  constructor(url) {
    super();
    this.url = url;
    this.#open();
  }

  /** Sends a command; resolves with its answer, rejects with an Error that has `code`. */
  command(frame) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) {
        reject(problem("unavailable", "Not connected; wait for the connection and try again."));
        return;
      }
      const id = this.#nextId++;
      const timer = setTimeout(() => this.#settle(id, (w) => w.reject(problem("timeout", "No answer within 10 seconds."))), ANSWER_WITHIN_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ ...frame, id }));
    });
  }

  /** Does not wait for the next attempt. */
  retryNow() {
    clearTimeout(this.#retry);
    this.#open();
  }

  #open() {
    this.#tell("state", { state: "connecting" });
    const socket = new WebSocket(this.url, "groupcast.v1");
    this.#socket = socket;
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = (event) => { if (socket === this.#socket) this.#closed(event); };
  }

  #take(frame) {
    if (frame.id !== undefined && this.#waiting.has(frame.id)) {
      this.#settle(frame.id, (w) => (frame.type === "error" ? w.reject(problem(frame.code, frame.message)) : w.resolve(frame)));
    } else if (frame.type === "welcome") {
      this.#attempt = 0;
      this.#atLeastMs = 0;
      this.#tell("state", { state: "open", detail: frame.channel });
      this.#tell("welcome", { frame, lostMs: this.#lostAt === undefined ? undefined : Date.now() - this.#lostAt });
      this.#lostAt = undefined;
      clearInterval(this.#ping);
      this.#ping = setInterval(() => this.#measure(), PING_EVERY_MS);
      // Not at once: then it would measure how busy the page is with starting.
      setTimeout(() => this.#measure(), FIRST_PING_MS);
    } else {
      if (frame.type === "closing") this.#atLeastMs = frame.retry_after_ms ?? 0;
      this.#tell("push", { frame });
    }
  }

  async #measure() {
    const socket = this.#socket;
    if (socket.readyState !== WebSocket.OPEN) return;
    let least = Infinity;
    try {
      // The least of three is the way there and back; the others also measure what the page was busy with.
      for (let i = 0; i < 3; i++) {
        const started = performance.now();
        await this.command({ type: "ping" });
        least = Math.min(least, performance.now() - started);
      }
      this.#tell("latency", { ms: least });
    } catch {
      // A socket that does not answer is dead, whatever the operating system believes.
      if (socket === this.#socket) this.#abandon(socket);
    }
  }

  // Closing a dead socket properly would wait for an answer that never comes.
  #abandon(socket) {
    socket.onclose = socket.onmessage = null;
    socket.close();
    this.#closed({ code: 3008, reason: "no answer to a ping" });
  }

  #closed(event) {
    clearInterval(this.#ping);
    this.#lostAt ??= Date.now();
    for (const id of [...this.#waiting.keys()]) {
      this.#settle(id, (w) => w.reject(problem("unavailable", "The connection was lost before the answer came.")));
    }
    const why = event.reason || REASONS[event.code] || `close code ${event.code}`;
    if (!RECONNECT.has(event.code)) {
      this.#tell("state", { state: "closed", detail: why });
      return;
    }
    // Full jitter: anywhere between 0 and the bound, so that a thousand pages do not come back at once.
    const bound = Math.min(LONGEST_MS, BASE_MS * 2 ** this.#attempt++);
    const wait = this.#atLeastMs + Math.random() * bound;
    this.#retry = setTimeout(() => this.#open(), wait);
    this.#tell("state", { state: "waiting", detail: why, retryAt: Date.now() + wait });
  }

  #settle(id, how) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    how(waiting);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function problem(code, message) {
  return Object.assign(new Error(message || code), { code });
}
