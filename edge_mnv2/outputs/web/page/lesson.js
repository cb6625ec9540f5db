// What the page and the pictures of a lesson have in common: elements that change only where something is another.

export const at = (id) => document.getElementById(id);

const STEPS = {
  starting: () => ["Starting", "The camera is being opened."],
  waiting: ({ label }) => [label, "Show it to the camera, then press the button. Move it a little meanwhile."],
  taking: ({ label }) => [label, "Move it a little, show it from other sides."],
  learning: ({ done, total }) => ["Learning", done < total ? `${done} of ${total} pictures seen` : "from what was seen in them"],
  trying: () => ["Try it", "Show it something: the answers are the new model's. Use it, or mend its pictures and teach again."],
  stuck: () => ["Nothing was learned", "Take more pictures or delete bad ones, then teach again."],
  untried: () => ["It cannot be tried", "It was learned and is kept. Go on, or teach again."],
  done: () => ["Done", ""],
  failed: () => ["It did not work", ""],
};

// Pictures are taken for a lesson: which class is next, the button that begins it, and what came of it.
export function lesson(given) {
  document.body.classList.toggle("teaching", Boolean(given));
  at("lesson").hidden = !given;
  if (!given) return;
  const { phase, label, shots, taken, lines } = given;
  const [title, text] = STEPS[phase](given);
  write(at("lesson-label"), title);
  write(at("lesson-text"), text);
  const [done, total] = phase === "learning" ? [given.done, given.total] : [taken.find((one) => one.label === label)?.pictures, shots];
  const bar = at("lesson-progress");
  bar.hidden = !(phase === "taking" || (phase === "learning" && done < total));
  Object.assign(bar, { max: total || 1, value: done || 0 });
  const go = at("lesson-go");
  go.hidden = !(phase === "waiting" || phase === "taking");
  go.disabled = phase !== "waiting";
  write(go, phase === "waiting" ? `Take ${shots} ${shots === 1 ? "picture" : "pictures"}` : `${done} of ${shots}`);
  document.body.classList.toggle("trying", phase === "trying");
  const open = ["trying", "stuck", "untried"].includes(phase);
  at("lesson-use").hidden = phase !== "trying";
  at("lesson-finish").hidden = !open;
  at("lesson-again").hidden = !(open && given.changed);
  at("lesson-lines").hidden = !lines.length;
  pairs(at("lesson-lines"), lines.filter(Boolean).map(inTwo));
  classes(given, open);
  pictures(given.revision);
}

// A line of the terminal's table: what it is about, and the rest.
function inTwo(line) {
  const [name, ...rest] = line.split(/ {2,}/);
  return [name, rest.join(" ")];
}

// One row a class: how many pictures, a button for more after the lesson, and the pictures themselves.
function classes({ taken, shots }, open) {
  const box = at("lesson-taken");
  while (box.children.length > taken.length) box.lastElementChild.remove();
  taken.forEach(({ label, pictures: count }, index) => {
    const row = box.children[index] || box.appendChild(classRow());
    row.dataset.label = label;
    const [name, number, more] = row.firstElementChild.children;
    write(name, label);
    const all = row.lastElementChild.children.length;
    write(number, open ? `${all} ${all === 1 ? "picture" : "pictures"}` : `${count} of ${shots}`);
    more.hidden = !open;
    write(more, `${shots} more`);
  });
}

function classRow() {
  const row = document.createElement("section");
  const head = document.createElement("p");
  head.append(document.createElement("span"), document.createElement("span"), document.createElement("button"));
  head.lastElementChild.type = "button";
  head.lastElementChild.addEventListener("click", () => press({ do: "more", class: row.dataset.label }));
  row.append(head, document.createElement("ul"));
  return row;
}

let known = null;
let asking = false;

// The list of pictures is asked for when it is another.
async function pictures(revision) {
  if (revision === known || asking) return;
  asking = true;
  try {
    const answer = await fetch("api/lesson/pictures");
    if (!answer.ok) return;
    for (const { label, pictures: files } of (await answer.json()).classes) {
      const row = [...at("lesson-taken").children].find((one) => one.dataset.label === label);
      if (row) thumbnails(row.lastElementChild, label, files);
    }
    known = revision;
  } catch {
    // The next state asks again.
  } finally {
    asking = false;
  }
}

function thumbnails(list, label, files) {
  for (const item of [...list.children]) if (!files.includes(item.dataset.file)) item.remove();
  const there = new Set([...list.children].map((item) => item.dataset.file));
  for (const file of files) {
    if (there.has(file)) continue;
    const item = document.createElement("li");
    item.dataset.file = file;
    const image = document.createElement("img");
    image.src = `api/lesson/picture.jpg?${new URLSearchParams({ class: label, file, small: 1 })}`;
    image.alt = `${label}, ${file}`;
    image.loading = "lazy";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.setAttribute("aria-label", `Delete ${file} of ${label}`);
    button.addEventListener("click", () => press({ class: label, file }, "api/lesson/delete"));
    item.append(image, button);
    list.append(item);
  }
}

// What a visitor wants; what cannot be done is said.
export async function press(wish, path = "api/lesson") {
  const problem = at("lesson-problem");
  let why = "The board does not answer.";
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(wish) });
    why = answer.ok ? "" : (await answer.json()).error;
  } catch {
    // Said below.
  }
  problem.textContent = why;
  problem.hidden = !why;
}

for (const [id, wish] of Object.entries({ go: {}, use: { do: "use" }, again: { do: "again" }, finish: { do: "finish" } })) {
  at(`lesson-${id}`).addEventListener("click", () => press(wish));
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A list of terms and texts, changed only where something is another.
export function pairs(list, rows) {
  rows.forEach(([name, value, style], index) => {
    const term = list.children[2 * index] || list.appendChild(document.createElement("dt"));
    const text = list.children[2 * index + 1] || list.appendChild(document.createElement("dd"));
    write(term, name);
    write(text, value);
    text.className = style || "";
  });
  while (list.children.length > 2 * rows.length) list.lastElementChild.remove();
}

// What went wrong is said in words; the answer is null then.
export async function post(path, values, problem = at("problem")) {
  let why = "The board does not answer.";
  let given = null;
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(values),
    });
    given = await answer.json();
    why = answer.ok ? "" : given.error;
  } catch {
    // Said below.
  }
  problem.textContent = why;
  problem.hidden = !why;
  return why ? null : given;
}
