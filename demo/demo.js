// The demo page: four playbacks of one user, and the guards that they hold.

import { play } from "./player.js";

const DEVICES = ["TV", "Laptop", "Tablet", "Phone"];
const STREAM = "media/cmaf";
const MASTER = new URL(`/${STREAM}/master.m3u8`, location.href);
const user = new URLSearchParams(location.search).get("user") ?? "demo";

/** An answer that is no success, with its problem document (RFC 9457) if it has one. */
class Problem extends Error {
  constructor(response, document) {
    super(document.detail ?? `${response.status} ${response.statusText}`);
    Object.assign(this, { response, document });
  }
}

/** Fetches as the user, past the browser's cache: what it answers the gate does not see. */
async function request(url, { headers, ...options } = {}) {
  const response = await fetch(url, { cache: "no-store", ...options, headers: { "X-User-Id": user, ...headers } })
    .catch((reason) => { throw reason instanceof TypeError ? new Error("The server cannot be reached") : reason; });
  if (!response.ok) throw new Problem(response, await response.json().catch(() => ({})));
  return response;
}

/** A session id. crypto.randomUUID is kept from pages that come over plain HTTP. */
function newSession() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One device. It is known by its X-Device header, and each of its playbacks by CMCD's sid, from which its URL comes. */
class Tile {
  constructor(device) {
    this.device = device;
    this.element = fromTemplate("tile");
    this.element.dataset.device = device;
    this.part("h2").textContent = device;
    this.part("use").setAttribute("href", `#${device.toLowerCase()}`);
    this.part(".toggle").addEventListener("click", () => (this.playing ? this.stop() : this.start()));
    this.part(".replace").addEventListener("click", () => {
      this.part(".toggle").focus();
      this.start({ replace: true });
    });
    this.part("video").addEventListener("playing", () => this.seen());
    this.show("stopped");
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  /** Plays until it is stopped, or until the gate says so; again under the session id of before, if there is one. */
  async start({ replace = false, again } = {}) {
    const playing = (this.playing = new AbortController());
    const { signal } = playing;
    const session = (this.session = again ?? newSession());
    this.show("starting");
    try {
      if (replace || again) {
        const guard = await this.request("/guards", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ playbackId: session, streamId: STREAM, ...(replace && { onLimit: "replace_oldest" }) }),
        });
        const { guardId } = await guard.json();
        if (signal.aborted) return this.release(guardId);
        this.guardId = guardId;
      }
      await play(this.part("video"), MASTER, (url) => this.request(named(url, session), { signal }), signal);
    } catch (reason) {
      if (signal.aborted) return;
      playing.abort(); // the other track
      this.playing = null;
      this.ended(reason);
      list();
    }
  }

  request(url, options = {}) {
    return request(url, { ...options, headers: { "X-Device": this.device, ...options.headers } });
  }

  /** The picture moves: by now there is a guard, which nobody asked for but the media. */
  async seen() {
    const { playing } = this;
    if (!playing) return;
    this.show("playing");
    const guardId = await this.findGuard();
    if (this.playing === playing) this.guardId ??= guardId;
  }

  async findGuard() {
    return (await list()).findLast((guard) => guard.deviceId === this.device)?.guardId;
  }

  /** Stops and gives the slot back, also when the page is being left. */
  async stop() {
    const { playing, guardId } = this;
    this.playing = this.guardId = null;
    playing.abort();
    this.show("stopped");
    await this.release(guardId ?? (await this.findGuard()));
  }

  async release(guardId) {
    if (!guardId) return;
    await this.request(`/guards/${guardId}`, { method: "DELETE", keepalive: true }).catch(() => {}); // gone already
    list();
  }

  ended(reason) {
    this.guardId = null;
    if (!(reason instanceof Problem)) return this.show("failed", element("h3", "Cannot play"), element("p", reason.message));
    showAnswer(reason);
    const { errorCode = "" } = reason.document;
    const code = element("code", `${reason.response.status} ${errorCode}`);
    if (errorCode === "REACHED_MAX_GUARDS_COUNT") this.refused(code, reason.document);
    else if (errorCode === "GUARD_REPLACED") {
      this.show("replaced", code, element("h3", "Replaced"), element("p", "Another playback of this user has taken its place."));
    } else if (errorCode === "GUARD_REVOKED") {
      this.show("replaced", code, element("h3", "Ended from elsewhere"), element("p", "An operator has ended this playback."));
    } else this.show("failed", code, element("h3", "Cannot play"), element("p", reason.message));
  }

  refused(code, { limit, guards = [], total = guards.length, retryAfter }) {
    const holders = guards.map((guard) => {
      const item = element("li");
      item.append(element("strong", name(guard)), ` ${guard.streamId ?? ""}, since ${time(guard.createdAt)}`);
      return item;
    });
    const inTheWay = element("ul");
    inTheWay.append(...holders);
    this.show("refused", code, element("h3", `Limit reached: ${total} of ${limit} in use`), inTheWay);
    known.remaining = 0; // the list may be older
    this.waits = Boolean(retryAfter); // without it, waiting does not help
    tick();
    const button = this.part(".replace");
    button.replaceChildren("Watch here instead ", element("small", guards.length ? `(stops ${name(guards[0])}, the oldest)` : "(stops the oldest)"));
    button.hidden = false;
  }

  show(state, ...why) {
    const label = this.playing ? "Stop" : why.length ? "Try again" : "Play";
    this.element.dataset.state = state;
    this.part(".state").textContent = { starting: "Starting…", playing: "Playing", refused: "Refused", replaced: "Replaced", failed: "Failed" }[state] ?? "Stopped";
    this.part(".toggle").textContent = label;
    this.part(".toggle").setAttribute("aria-label", `${label} on ${this.device}`);
    this.part(".why").replaceChildren(...why);
    this.part(".retry").textContent = "";
    this.part(".replace").hidden = true;
    this.waits = false;
  }

  /** Says when there is room. A number of seconds would be wrong as long as all of them play. */
  tick(remaining, silence) {
    if (!this.waits) return;
    const silent = silence ? `, or ${silence} s after one falls silent` : "";
    say(this.part(".retry"), remaining > 0 ? "A place is free now." : `A place is free when one stops${silent}.`);
  }
}

/** The URL with CMCD (CTA-5004), by which any player can name its playback. */
function named(url, session) {
  const of = new URL(url);
  of.searchParams.set("CMCD", `cid="${STREAM}",sid="${session}"`);
  return of;
}

// The list of guards.

let known = { guards: [], remaining: 0 };
let ahead = -Infinity; // of the server's clock; its Date has whole seconds, so the most seen is nearest
let ttl = 0; // the longest that a guard was seen to have

/** Asks what the user is watching, and shows it. */
async function list() {
  const usage = document.querySelector("#usage");
  try {
    const response = await request("/guards");
    known = await response.json();
    ahead = Math.max(ahead, Date.parse(response.headers.get("Date")) - Date.now());
    say(usage, `${known.guards.length} of ${known.limit} in use`);
  } catch (reason) {
    say(usage, reason.message);
  }
  tick();
  return known.guards;
}

/** Sets a text only if it is news, which a screen reader would read out. */
function say(status, text) {
  if (status.textContent !== text) status.textContent = text;
}

function tick() {
  const now = Date.now() + ahead;
  const rows = new Map(Array.from(document.querySelectorAll("#guards li"), (row) => [row.dataset.guard, row]));
  const current = known.guards.filter((guard) => Date.parse(guard.removedAt) > now);
  const shown = current.map((guard) => {
    const row = rows.get(guard.guardId) ?? newRow(guard);
    const removed = Date.parse(guard.removedAt);
    const expires = Date.parse(guard.expiresAt);
    const active = expires > now;
    ttl = Math.max(ttl, removed - now);
    row.classList.toggle("lapsed", !active);
    row.querySelector(".stream").textContent = `${guard.streamId ?? ""}, since ${time(guard.createdAt)}`;
    row.querySelector(".left").textContent = `${active ? "active" : guard.state === "closed" ? "closed" : "lapsed"} ${Math.ceil(((active ? expires : removed) - now) / 1000)} s`;
    row.style.setProperty("--left", (removed - now) / ttl);
    row.style.setProperty("--lapse", (removed - expires) / ttl);
    return row;
  });
  // Left alone where nothing has changed, rows keep their animation.
  if (shown.length !== rows.size || shown.some((row) => !row.parentNode)) document.querySelector("#guards").replaceChildren(...shown);
  document.querySelector("#nobody").hidden = current.length > 0;
  for (const tile of tiles) tile.tick(known.remaining, silence(current, now));
}

/** Seconds after its last request that a guard is gone; undefined where none tells. */
function silence(guards, now) {
  const active = guards.find((guard) => Date.parse(guard.expiresAt) > now);
  return active && 3 * active.refreshAfter + Math.round((Date.parse(active.removedAt) - Date.parse(active.expiresAt)) / 1000);
}

function newRow(guard) {
  const row = fromTemplate("guard");
  row.dataset.guard = guard.guardId;
  row.querySelector(".device").textContent = name(guard);
  return row;
}

function showAnswer({ response, document: problem }) {
  const details = document.querySelector("#answer");
  const retryAfter = response.headers.get("Retry-After");
  details.hidden = false;
  details.querySelector("pre").textContent =
    `HTTP ${response.status}\n${retryAfter ? `Retry-After: ${retryAfter}\n` : ""}\n${JSON.stringify(problem, null, 2)}`;
}

function name(guard) {
  return guard.deviceId ?? "Another player";
}

function time(instant) {
  return new Date(instant).toLocaleTimeString();
}

function element(tag, text = "") {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

// The page.

const tiles = DEVICES.map((device) => new Tile(device));
document.querySelector("#tiles").append(...tiles.map((tile) => tile.element));
document.querySelector("#user").textContent = user;
document.querySelector("#viewer").textContent = user;
document.querySelector("#media").textContent = MASTER;
if (user !== "demo") { // who says nothing is demo
  document.querySelector("#says").hidden = false;
  document.querySelector("#says code").textContent = `X-User-Id: ${user}`;
}
const other = user === "demo" ? "alice" : "demo";
Object.assign(document.querySelector("#other"), { href: `?user=${other}`, textContent: `Switch to ${other}` });

list();
setInterval(() => document.hidden || list(), 2000);
setInterval(tick, 250);
document.addEventListener("visibilitychange", () => document.hidden || list());

// A page that is left gives its slots back. One that is loaded again, or that the browser has kept, plays on.
const left = `playing as ${user}`;
addEventListener("pagehide", () => {
  const playing = tiles.filter((tile) => tile.playing);
  sessionStorage.setItem(left, JSON.stringify(Object.fromEntries(playing.map((tile) => [tile.device, tile.session]))));
  for (const tile of playing) tile.stop();
});
addEventListener("pageshow", () => {
  const sessions = JSON.parse(sessionStorage.getItem(left) ?? "{}");
  sessionStorage.removeItem(left); // a copy of the tab has sessions of its own
  for (const tile of tiles) if (sessions[tile.device]) tile.start({ again: sessions[tile.device] });
});
