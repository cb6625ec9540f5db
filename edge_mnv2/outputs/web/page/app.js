// The page of a run, or of a lesson's pictures: state comes by server-sent events, the picture as multipart JPEG; hidden tabs get neither.

import { Chart } from "./charts.js";
import { at, lesson, pairs, post, write } from "./lesson.js";
import { region } from "./region.js";

const percent = (score) => `${Math.round(score * 100)} %`;
// A measured value has a unit, which may be empty, and maybe an error to expect; a score has neither.
const figure = (score, unit, error) => {
  if (unit === undefined) return percent(score);
  const off = error === undefined ? "" : ` ± ${Number(error.toPrecision(2))}`;
  return `${Number(score.toPrecision(4))}${off} ${unit}`.trim();
};
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

const WORDS = {
  ok: "live",
  paused: "paused",
  starting: "starting",
  stalled: "no results",
  reconnecting: "camera lost, reconnecting",
  offline: "no connection",
  ended: "ended",
};

const charts = {
  fps: new Chart("fps", "Frames a second", (value) => value.toFixed(1)),
  latency: new Chart("latency", "Latency", milliseconds, " ms"),
};

let events = null;
let sampledAt = 0;
let spokenAt = -Infinity;
let spoken = "";
let touchedAt = 0;
let version = null;
let ended = false;

function follow() {
  if (events || ended || document.hidden) return;
  history();
  picture();
  events = new EventSource("api/stream");
  events.addEventListener("open", () => at("view").hidden || picture());
  events.addEventListener("state", (message) => show(JSON.parse(message.data)));
  events.addEventListener("error", () => {
    badge("offline");
    if (events.readyState === EventSource.CLOSED) {
      leave();
      // A token that was changed asks for the login page; anything else is tried again.
      fetch("api/state").then((answer) => answer.status === 401 && location.reload()).catch(() => {});
      setTimeout(follow, 3000);
    }
  });
}

function leave() {
  if (events) events.close();
  events = null;
  at("view").removeAttribute("src");
}

// The board has nothing more to say: what it said last stays.
function end() {
  ended = true;
  leave();
  badge("ended");
  at("view").hidden = true;
  at("no-view").hidden = false;
  write(at("no-view"), "The camera is closed");
}

function picture() {
  at("view").src = `stream.mjpg?${Date.now()}`;
}

at("view").addEventListener("load", () => {
  at("view").hidden = false;
  at("no-view").hidden = true;
});
at("view").addEventListener("error", () => {
  if (events) setTimeout(() => events && picture(), 2000);
});

async function history() {
  try {
    const answer = await fetch("api/state");
    if (!answer.ok) return;
    const { history: past } = await answer.json();
    charts.fps.set(past.fps);
    charts.latency.set(past.latency_ms);
  } catch {
    // The event stream says what is wrong.
  }
}

function badge(state) {
  const shown = at("state");
  const word = WORDS[state] || state;
  write(shown, word);
  shown.className = `badge ${state === "ok" ? "ok" : ["stalled", "offline"].includes(state) ? "bad" : ""}`;
  const veil = at("veil");
  veil.hidden = ["ok", "starting", "ended"].includes(state);
  write(veil, word);
}

function show(state) {
  badge(state.state);
  at("source").textContent = [state.source, state.model].filter(Boolean).join(" · ");
  bars(state.top, state.controls ? state.controls.threshold : 0);
  at("unsure").hidden = !state.unsure;
  at("bars").classList.toggle("dim", state.unsure);
  chips(state.present);
  log(state.events);
  at("keep").hidden = !state.snapshots;
  at("to-review").hidden = state.collected === null;
  if (state.controls) controls(state.controls);
  region(state.roi);
  lesson(state.lesson);
  if (state.lesson && ["done", "failed"].includes(state.lesson.phase)) return end();
  speak(state);
  const now = performance.now();
  if (now - sampledAt >= 1000) {
    sampledAt = now;
    facts(state);
    const known = state.fps !== null && state.fps > 0;
    charts.fps.add(state.fps);
    charts.latency.add(known ? state.latency_ms : null);
  }
}

function bars(top, threshold) {
  const list = at("bars");
  while (list.children.length > top.length) list.lastElementChild.remove();
  while (list.children.length < top.length) list.append(bar());
  top.forEach(({ label, score, unit, error }, index) => {
    const [name, number, track] = list.children[index].children;
    if (name.textContent !== label) {
      name.textContent = label;
      name.title = label;
    }
    number.textContent = figure(score, unit, error);
    track.firstElementChild.style.transform = `scaleX(${Math.max(0, Math.min(1, score))})`;
    track.lastElementChild.style.left = `${threshold * 100}%`;
    track.lastElementChild.hidden = !threshold;
  });
}

function bar() {
  const made = document.createElement("li");
  const parts = ["name", "score", "track"].map((style) => {
    const part = document.createElement(style === "track" ? "div" : "span");
    part.className = style;
    return part;
  });
  for (const style of ["fill", "mark"]) {
    const part = document.createElement("div");
    part.className = style;
    parts[2].append(part);
  }
  parts[2].setAttribute("aria-hidden", "true");
  made.append(...parts);
  return made;
}

// Children are changed only where their text is another, so that neither a selection nor a screen reader is disturbed.
function fill(list, texts, make) {
  while (list.children.length > texts.length) list.lastElementChild.remove();
  texts.forEach((text, index) => {
    const item = list.children[index] || list.appendChild(document.createElement("li"));
    if (item.dataset.text === text) return;
    item.dataset.text = text;
    make(item, index);
  });
}

const short = (label) => label.split(",")[0];

function chips(labels) {
  fill(at("present"), labels, (item, index) => (item.textContent = short(labels[index])));
  at("nobody").hidden = labels.length > 0;
}

function log(events) {
  at("events-card").hidden = !events.length;
  const texts = events.map(({ event, label, start, end }) => [event, label, start, end].join("|"));
  fill(at("events"), texts, (item, index) => {
    const { event, label, start, end, best } = events[index];
    const time = new Date(event === "gone" ? end : start).toLocaleTimeString([], { hour12: false });
    const seconds = (new Date(end) - new Date(start)) / 1000;
    const there = seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);
    const stayed = event === "gone" ? `gone after ${there}` : "appeared";
    const parts = [time, short(label), `${stayed}, ${percent(best)}`].map((text, place) => {
      const part = document.createElement("span");
      part.textContent = text;
      part.className = place === 1 ? "name" : "quiet";
      return part;
    });
    item.replaceChildren(...parts);
  });
}

function facts(state) {
  const throttled = state.throttled && state.throttled.length ? state.throttled.join(", ") : null;
  const rows = [
    ["Temperature", state.temp_c === null ? null : `${state.temp_c.toFixed(0)} °C`],
    ["Throttled", throttled, "warn"],
    ["Engine", state.engine || state.delegate || null],
    ["Inference", state.inference_ms === null ? null : milliseconds(state.inference_ms)],
    ["Model", state.model || null],
    ["Runtime", state.runtime ? `${state.runtime}, ${state.threads} ${state.threads === 1 ? "thread" : "threads"}` : null],
    ["Profile", state.device || null],
    ["Frames", state.frames.toLocaleString("en")],
    ["Dropped", state.dropped.toLocaleString("en")],
    ["Camera lost", state.reconnects ? `${state.reconnects} times` : null, "warn"],
    ["Not written", state.write_errors ? `${state.write_errors} results` : null, "warn"],
    ["Running for", state.uptime_s === null ? null : duration(state.uptime_s)],
  ].filter(([, value]) => value !== null);
  pairs(at("facts"), rows);
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

// A screen reader hears the first class when it changes, not five times a second.
function speak(state) {
  const first = state.unsure ? "nothing recognized" : state.top.length ? state.top[0].label : "";
  if (first === spoken || performance.now() - spokenAt < 3000) return;
  spoken = first;
  spokenAt = performance.now();
  at("spoken").textContent = first;
}

function controls(values) {
  at("pause").setAttribute("aria-pressed", String(values.paused));
  at("pause").textContent = values.paused ? "Resume" : "Pause";
  // What somebody moves right now is not pulled from under the finger.
  if (values.version === version || performance.now() - touchedAt < 1500) return;
  version = values.version;
  at("threshold").value = values.threshold;
  at("smooth").value = values.smooth;
  label();
}

function label() {
  const smooth = Number(at("smooth").value);
  at("threshold-value").textContent = percent(Number(at("threshold").value));
  at("smooth-value").textContent = smooth ? percent(smooth) : "off";
  at("threshold").setAttribute("aria-valuetext", at("threshold-value").textContent);
  at("smooth").setAttribute("aria-valuetext", at("smooth-value").textContent);
}

let waiting = {};
let timer = null;

function change(values) {
  touchedAt = performance.now();
  Object.assign(waiting, values);
  timer = timer || setTimeout(send, 120);
}

function send() {
  const values = waiting;
  waiting = {};
  timer = null;
  post("api/controls", values);
}

async function keep() {
  const saved = await post("api/snapshot", {});
  at("saved").textContent = saved ? `Kept on the board as ${saved.saved}` : "";
  at("saved").hidden = !saved;
}

for (const name of ["threshold", "smooth"]) {
  at(name).addEventListener("input", () => {
    label();
    change({ [name]: Number(at(name).value) });
  });
}
at("pause").addEventListener("click", () => change({ paused: at("pause").getAttribute("aria-pressed") !== "true" }));
at("keep").addEventListener("click", keep);
at("sliders").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", follow);
if (document.readyState === "complete") follow();
else window.addEventListener("load", follow);
