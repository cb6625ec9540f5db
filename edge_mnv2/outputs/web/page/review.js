// What was collected: choose pictures, press a class; teach from the answers, use the new model, step back.

const at = (id) => document.getElementById(id);
const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);
// A measured value has a unit, which may be empty; a score has none.
const figure = ({ score, unit }) => (unit === undefined ? percent(score) : `${Number(score.toPrecision(4))} ${unit}`.trim());

const made = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

let items = [];
let bench = null;
let shown = "open";
let added = [];
const chosen = new Set();
const history = [];
const tiles = new Map();
// The classes in the order of their buttons, and so of the keys 1 to 9.
let drawn = [];

async function ask(path, document) {
  const answer = await fetch(path, document === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(document),
  });
  if (answer.status === 401) location.reload();
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error || `error ${answer.status}`);
  return said;
}

async function attempt(action) {
  at("problem").hidden = true;
  try {
    return await action();
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
    at("problem").scrollIntoView({ block: "nearest" });
    return null;
  }
}

const answerText = (answer) => (answer.bad ? "bad picture" : answer.class ?? "none of them");
const visible = (item) => shown === "all" || (shown === "open") === (item.answer === null);

function tile(item, atOnce) {
  const button = made("button", "", { type: "button", class: "tile", "aria-pressed": chosen.has(item.id) });
  const best = item.top[0];
  const guess = best ? `${best.label.split(",")[0]} ${figure(best)}` : "";
  button.append(made("img", "", { [atOnce ? "src" : "data-src"]: `api/collected/${item.id}.jpg?small`, alt: "", decoding: "async" }));
  if (item.answer) button.append(made("span", answerText(item.answer), { class: "answer" }));
  button.append(made("span", guess, { title: `${guess} · ${item.why.join(", ")} · ${item.t}` }));
  button.setAttribute("aria-label", `${item.answer ? answerText(item.answer) : "not answered"}, the model says ${guess}: ${item.why.join(", ")}`);
  button.addEventListener("click", () => choose([item.id], !chosen.has(item.id)));
  tiles.set(item.id, button);
  return button;
}

// Boxes of some rows each: the browser lays out and paints those that are near, and loads their pictures then.
const ROWS = 8;
const AT_ONCE = 2;
let columns = 1;
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    for (const image of target.querySelectorAll("img[data-src]")) image.src = image.dataset.src;
  }
}, { rootMargin: "100% 0px" });

// How wide a tile is, as review.css has it, in pixels.
function measure() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const [width, least, gap] = [at("grid").clientWidth, 6.5 * rem, 0.4 * rem];
  columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  at("grid").style.setProperty("--columns", columns);
  at("grid").style.setProperty("--row", `${(width + gap) / columns}px`);
}

function boxes(group) {
  const most = ROWS * columns;
  return Array.from({ length: Math.ceil(group.length / most) }, (_, place) => {
    const part = group.slice(place * most, (place + 1) * most);
    const box = made("div", "", { class: "tiles" });
    box.style.setProperty("--rows", Math.ceil(part.length / columns));
    box.append(...part.map((item) => tile(item, tiles.size < AT_ONCE * most)));
    near.observe(box);
    return box;
  });
}

function draw() {
  const former = [...tiles.keys()];
  const place = [...tiles.values()].indexOf(document.activeElement);
  near.disconnect();
  measure();
  const groups = new Map();
  for (const item of items.filter(visible)) groups.set(item.group, (groups.get(item.group) ?? []).concat(item));
  tiles.clear();
  const sections = [...groups.values()].filter((group) => group.length > 1).map((group) => {
    const section = made("section", "", { class: "group" });
    const all = made("button", `${group.length} alike`, { type: "button" });
    all.addEventListener("click", () => {
      const ids = group.map((item) => item.id);
      choose(ids, !ids.every((id) => chosen.has(id)));
    });
    section.append(all, ...boxes(group));
    return section;
  });
  // Pictures without a twin share one grid.
  const single = [...groups.values()].filter((group) => group.length === 1).flat();
  at("grid").replaceChildren(...sections, ...boxes(single));
  // Whoever is at a picture by keyboard stays there, or at the one that takes its place.
  if (place >= 0) (tiles.get(former[place]) ?? [...tiles.values()].slice(0, place + 1).pop())?.focus({ preventScroll: true });
  at("empty").hidden = groups.size > 0;
  const open = items.filter((item) => item.answer === null).length;
  at("counts").textContent = `${open} to answer, ${items.length - open} answered`;
  told();
}

function choose(ids, on) {
  for (const id of ids) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    tiles.get(id)?.setAttribute("aria-pressed", on);
  }
  told();
}

function told() {
  for (const id of [...chosen]) if (!tiles.has(id)) chosen.delete(id);
  at("chosen").textContent = chosen.size ? `${chosen.size} chosen: which class?` : "Tap pictures, then a class.";
  at("undo").disabled = history.length === 0;
  for (const button of document.querySelectorAll("#classes button, #none, #bad")) button.disabled = chosen.size === 0;
}

async function answer(change) {
  const ids = [...chosen];
  if (!ids.length) return;
  const before = items.filter((item) => chosen.has(item.id)).map((item) => [item.id, item.answer]);
  if ((await attempt(() => ask("api/answers", { ids, ...change }))) === null) return;
  history.push(before);
  chosen.clear();
  const now = change.bad ? { class: null, bad: true } : { class: change.class, bad: false };
  for (const item of items) if (ids.includes(item.id)) item.answer = now;
  draw();
}

async function undo() {
  const before = history.pop();
  if (!before) return;
  const same = new Map();
  for (const [id, old] of before) {
    const key = JSON.stringify(old);
    same.set(key, [...(same.get(key) ?? []), id]);
  }
  for (const [key, ids] of same) {
    const old = JSON.parse(key);
    await attempt(() => ask("api/answers", { ids, ...(old === null ? { undo: true } : old.bad ? { bad: true } : { class: old.class }) }));
  }
  await load();
}

function names() {
  const answered = items.map((item) => item.answer?.class).filter(Boolean);
  return [...new Set([...(bench?.classes ?? []), ...answered, ...added])];
}

function drawClasses() {
  drawn = names();
  const buttons = drawn.map((name, number) => {
    const button = made("button", name, { type: "button" });
    if (number < 9) button.append(made("kbd", String(number + 1)));
    button.addEventListener("click", () => answer({ class: name }));
    return button;
  });
  at("classes").replaceChildren(...buttons);
  told();
}

function table(head, rows) {
  const element = made("table");
  const line = (cells, tag) => {
    const row = made("tr");
    row.append(...cells.map((cell) => made(tag, cell)));
    return row;
  };
  element.append(line(head, "th"), ...rows.map((row) => line(row, "td")));
  return element;
}

function drawBench() {
  const { teaching, versions, model } = bench;
  at("model").textContent = model ?? "no model";
  at("to-live").hidden = !bench.live;
  const going = teaching.state === "teaching";
  at("teach-text").textContent = teaching.text;
  at("teach-progress").hidden = !going;
  if (teaching.progress === null) at("teach-progress").removeAttribute("value");
  else at("teach-progress").value = teaching.progress;
  at("teach").hidden = going || !bench.can_teach;
  at("cancel").hidden = !going;
  at("use").hidden = teaching.state !== "taught";
  at("report").hidden = !teaching.report;
  if (teaching.report) {
    const rows = teaching.report.classes.map((row) => [row.label, String(row.pictures), percent(row.before), percent(row.after)]);
    rows.push(["all", "", percent(teaching.report.before), percent(teaching.report.after)]);
    at("report").replaceChildren(
      table(["class", "held out", "before", "after"], rows),
      made("p", `${teaching.report.changed} collected pictures get another answer.`, { class: "quiet" }),
    );
  }
  at("versions").previousElementSibling.hidden = versions.length === 0;
  at("versions").replaceChildren(...versions.map((version) => {
    const about = [`version ${version.number}`, version.date.slice(0, 16).replace("T", " "), percent(version.accuracy)];
    return usable(about.filter((part) => part !== "–").join(" · "), version.model, version.current);
  }));
  const others = bench.models.filter((one, place, all) => all.findIndex((other) => other.name === one.name) === place);
  at("models").replaceChildren(...others.map((one) => usable(one.name, one.model, one.name === model)));
}

function usable(about, name, current) {
  const row = made("li");
  row.append(made("span", about));
  if (current) row.append(made("strong", "in use"));
  else {
    const button = made("button", "Use", { type: "button" });
    button.addEventListener("click", () => swap(name));
    row.append(button);
  }
  return row;
}

async function swap(model) {
  const result = await attempt(() => ask("api/model", { model }));
  if (result && result.taken === false && confirm(`${result.why}. Use it all the same?`)) {
    await attempt(() => ask("api/model", { model, force: true }));
  }
  await refresh();
}

async function load() {
  const document = await attempt(() => ask("api/collected"));
  // What is there stays as it is where nothing is new.
  if (document && tiles.size && JSON.stringify(document.items) === JSON.stringify(items)) return;
  if (document) items = document.items;
  draw();
}

async function refresh() {
  const before = bench?.teaching.state;
  bench = (await attempt(() => ask("api/workbench"))) ?? bench;
  if (!bench) return;
  drawBench();
  if (before !== bench.teaching.state) drawClasses();
}

async function start() {
  await Promise.all([load(), refresh()]);
  drawClasses();
  for (;;) {
    await new Promise((done) => setTimeout(done, bench?.teaching.state === "teaching" ? 700 : 5000));
    if (document.hidden) continue;
    await refresh();
    // New pictures do not push away what somebody is looking at.
    if (!chosen.size && window.scrollY < 200) await load();
  }
}

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    shown = button.dataset.show;
    for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", other === button);
    chosen.clear();
    draw();
  });
}
at("none").addEventListener("click", () => answer({ class: null }));
at("bad").addEventListener("click", () => answer({ bad: true }));
at("undo").addEventListener("click", undo);
at("teach").addEventListener("click", async () => {
  bench = (await attempt(() => ask("api/teach", {}))) ?? bench;
  drawBench();
  await refresh();
});
at("cancel").addEventListener("click", () => attempt(() => ask("api/teach", { cancel: true })).then(refresh));
at("use").addEventListener("click", () => swap(bench.teaching.model));
at("delete").addEventListener("click", async () => {
  if (confirm(`Delete all ${items.length} collected pictures and their answers?`)) {
    await attempt(() => ask("api/collected/delete", { all: true }));
    history.length = 0;
    await load();
  }
});
at("new-class").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("new-name").value.trim();
  if (name && !names().includes(name)) added = [...added, name];
  at("new-name").value = "";
  drawClasses();
  if (name && chosen.size) answer({ class: name });
});
at("try").addEventListener("change", async () => {
  const file = at("try").files[0];
  if (!file) return;
  const result = await attempt(async () => {
    const answer = await fetch("api/classify", { method: "POST", headers: { "Content-Type": file.type }, body: file });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    return said;
  });
  at("tried").replaceChildren(...(result?.top ?? []).map((one) => made("li", `${one.label}: ${figure(one)}`)));
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (number >= 1 && number <= drawn.length) answer({ class: drawn[number - 1] });
  else if (event.key === "n") answer({ class: null });
  else if (event.key === "x") answer({ bad: true });
  else if (event.key === "z") undo();
  else if (event.key === "Escape") choose([...chosen], false);
  else if (event.key.startsWith("Arrow")) step(event);
});

function step(event) {
  const order = [...document.querySelectorAll(".tile")];
  const now = order.indexOf(document.activeElement);
  const beside = now < 0 ? [] : [...order[now].parentElement.children];
  const across = Math.max(1, beside.filter((one) => one.offsetTop === order[now].offsetTop).length);
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  const next = order[Math.max(0, Math.min(order.length - 1, now + move))];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

window.addEventListener("resize", () => {
  const before = columns;
  measure();
  if (columns !== before) draw();
});

start();
