// What the page asks of the gateway, below /admin/api/. The session's cookie goes along by itself.

const ANSWER_WITHIN_MS = 10_000;

/** Told on `window` when the gateway wants to know again who asks. */
export const SIGNED_OUT = "signed-out";

/**
 * Asks. Resolves with the JSON of the answer, or `null` when it has none; rejects with an Error that has `status` (0: no
 * answer) and `code`.
 */
export async function api(path, { method = "GET", body } = {}) {
  let answer;
  try {
    answer = await fetch(`/admin/api/${path}`, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      cache: "no-store",
    });
  } catch {
    throw problem(0, "unavailable", "The gateway does not answer.");
  }
  const json = await answer.json().catch(() => null);
  if (answer.ok) return json;
  if (answer.status === 401 && path !== "session") dispatchEvent(new Event(SIGNED_OUT));
  throw problem(answer.status, json?.code, json?.detail ?? `The gateway answered with ${answer.status}.`);
}

/** A path with what belongs between its slashes. */
export const at = (...parts) => parts.map(encodeURIComponent).join("/");

/** A query string of what is there. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

function problem(status, code, message) {
  return Object.assign(new Error(message), { status, code });
}
