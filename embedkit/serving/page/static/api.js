// Requests to the server that this page came from, and what goes wrong with them.

import { keep, kept } from "./dom.js";

const NAME = "embedkit.key";
let key = kept("sessionStorage", NAME) ?? "";

export const hasKey = () => key !== "";

/** Take an API key for this tab; "" forgets it. It goes into a header alone. */
export function useKey(given) {
  key = given;
  keep("sessionStorage", NAME, given || null);
}

/** Why there is no answer. `kind`: network, key, busy, refused (the request), missing, server. */
export class ApiError extends Error {
  constructor(kind, message, { status = 0, retry = 0, request = "" } = {}) {
    super(message);
    Object.assign(this, { kind, status, retry, request });
  }
}

const ask = async (path, { body, signal } = {}) => {
  const headers = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let answer, text;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      credentials: "same-origin",
      cache: "no-store",
    });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("network", "The server does not answer. It may have been stopped, or the network is gone.");
  }
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    content = null;
  }
  if (answer.ok && content !== null) return content;
  throw failure(answer, content);
};

function failure(answer, content) {
  const reason = content?.error?.message ?? content?.error ?? content?.message;
  const message = typeof reason === "string" ? reason : `The server answered ${answer.status} without saying why.`;
  const retry = Number(answer.headers.get("retry-after")) || 0;
  const more = { status: answer.status, retry, request: answer.headers.get("x-request-id") ?? "" };
  if (answer.status === 401) return new ApiError("key", message, more);
  if (answer.status === 429) return new ApiError("busy", message, more);
  if (answer.status === 404) return new ApiError("missing", message, more);
  if (answer.status >= 400 && answer.status < 500) return new ApiError("refused", message, more);
  return new ApiError("server", message, more);
}

const TRIES = 8; // of a busy server

const second = (signal) =>
  new Promise((done, fail) => {
    const timer = setTimeout(done, 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    });
  });

/** Ask, and ask again as a busy server says; `wait` is told the seconds that are left, and 0 when it is asked again. */
export async function patiently(request, { signal, wait }) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request();
    } catch (error) {
      if (error.kind !== "busy" || tries === TRIES) throw error;
      for (let left = Math.max(1, Math.ceil(error.retry)); left > 0; left -= 1) {
        wait(left);
        await second(signal);
      }
      wait(0);
    }
  }
}

// A slash within an id is a part of the route's path, which proxies want to see as such; every other sign is escaped.
// Browsers resolve "." and ".." in a path, but not between escaped slashes.
const path = (id) =>
  /(^|\/)\.\.?(\/|$)/.test(id) ? encodeURIComponent(id) : id.split("/").map(encodeURIComponent).join("/");

export const indexes = (signal) => ask("indexes", { signal });
export const search = (body, signal) => ask("search", { body, signal });
export const documentOf = (index, id, signal) =>
  ask(`documents/${path(id)}?${new URLSearchParams({ index })}`, { signal });
export const similar = (index, id, passage, signal) =>
  ask(`similar/${path(id)}?${new URLSearchParams({ index, passage, k: 10 })}`, { signal });
export const explain = (query, index, id, passage, signal) =>
  ask("explain", { body: { query, index, id, passage }, signal });
