// The part of the picture that is classified: drawn on it with a finger, a mouse or arrow keys, then used.

import { at, post, write } from "./lesson.js";

const LEAST = 0.03;
const STEP = 0.02;
const MIDDLE = [0.25, 0.25, 0.5, 0.5];
const KEYS = matchMedia("(hover: none)").matches ? "" : " With keys: arrows move it, Shift and arrows change its size, Enter uses it.";

let now = null;
let draft = null;
let start = null;

const whole = (box) => !box || (box[2] > 0.999 && box[3] > 0.999);
const within = (value, low, high) => Math.max(low, Math.min(high, value));
const drawing = () => !at("region").hidden;

export function region(roi) {
  now = roi;
  at("region-tools").hidden = roi === null;
  tools();
}

function tools() {
  const on = drawing();
  write(at("region-draw"), on ? "Cancel" : "Choose a region");
  at("region-use").hidden = !on;
  at("region-use").disabled = !draft;
  at("region-whole").hidden = whole(now);
  write(at("region-text"), on ? `Drag a rectangle over the picture.${KEYS}` : whole(now) ? "" : "Only what is inside the yellow frame is classified.");
  at("region-text").hidden = !at("region-text").textContent;
}

// The picture stands inside of its element with bars beside it; the layer lies on the picture alone.
function place() {
  const [view, frame] = [at("view"), at("frame")].map((one) => one.getBoundingClientRect());
  const { naturalWidth, naturalHeight } = at("view");
  const scale = Math.min(view.width / naturalWidth, view.height / naturalHeight);
  const [width, height] = [naturalWidth * scale, naturalHeight * scale];
  Object.assign(at("region").style, {
    left: `${view.left - frame.left + (view.width - width) / 2}px`,
    top: `${view.top - frame.top + (view.height - height) / 2}px`,
    width: `${width}px`,
    height: `${height}px`,
  });
}

function show() {
  at("region-box").hidden = !draft;
  if (draft) {
    const [left, top, width, height] = draft.map((share) => `${share * 100}%`);
    Object.assign(at("region-box").style, { left, top, width, height });
  }
  tools();
}

function open() {
  if (!at("view").naturalWidth) return;
  at("region").hidden = false;
  draft = whole(now) ? null : [...now];
  place();
  show();
  at("region").focus({ preventScroll: true });
}

function close() {
  at("region").hidden = true;
  start = draft = null;
  tools();
}

function point(event) {
  const box = at("region").getBoundingClientRect();
  return [within((event.clientX - box.left) / box.width, 0, 1), within((event.clientY - box.top) / box.height, 0, 1)];
}

function drag(event) {
  if (!start) return;
  const end = point(event);
  const [left, top] = start.from.map((one, axis) => Math.min(one, end[axis]));
  const [right, bottom] = start.from.map((one, axis) => Math.max(one, end[axis]));
  const box = [left, top, right - left, bottom - top];
  // A tap is no rectangle: what was there before stays.
  draft = box[2] < LEAST || box[3] < LEAST ? start.before : box;
  show();
}

function key(event) {
  if (event.key === "Escape") return close();
  if (event.key === "Enter") return use();
  const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (!across && !down) return;
  event.preventDefault();
  const [left, top, width, height] = draft ?? MIDDLE;
  draft = event.shiftKey
    ? [left, top, within(width + across * STEP, LEAST, 1 - left), within(height + down * STEP, LEAST, 1 - top)]
    : [within(left + across * STEP, 0, 1 - width), within(top + down * STEP, 0, 1 - height), width, height];
  show();
}

async function set(roi) {
  if ((await post("api/roi", { roi })) === null) return;
  now = roi ?? [0, 0, 1, 1];
  close();
}

function use() {
  if (!draft) return;
  const [left, top] = draft.map((share) => Math.round(share * 1e4) / 1e4);
  // Rounded down: a region that hangs over the edge is refused.
  const [width, height] = [draft[0] + draft[2] - left, draft[1] + draft[3] - top].map((share) => Math.floor(share * 1e4) / 1e4);
  set([left, top, width, height]);
}

at("region-draw").addEventListener("click", () => (drawing() ? close() : open()));
at("region-use").addEventListener("click", use);
at("region-whole").addEventListener("click", () => set(null));
at("region").addEventListener("pointerdown", (event) => {
  at("region").setPointerCapture(event.pointerId);
  start = { from: point(event), before: draft };
});
at("region").addEventListener("pointermove", drag);
for (const name of ["pointerup", "pointercancel"]) at("region").addEventListener(name, () => (start = null));
at("region").addEventListener("keydown", key);
window.addEventListener("resize", () => drawing() && place());
