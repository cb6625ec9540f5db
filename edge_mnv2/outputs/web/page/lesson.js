// What the page and the pictures of a lesson have in common: elements that change only where something is another.

export const at = (id) => document.getElementById(id);

const STEPS = {
  starting: () => ["Starting", "The camera is being opened."],
  waiting: ({ label }) => [label, "Show it to the camera, then press the button. Move it a little meanwhile."],
  taking: ({ label }) => [label, "Move it a little, show it from other sides."],
  learning: ({ done, total }) => ["Learning", done < total ? `${done} of ${total} pictures seen` : "from what was seen in them"],
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
  at("lesson-lines").hidden = !lines.length;
  write(at("lesson-lines"), lines.join("\n"));
  pairs(at("lesson-taken"), taken.map((one) => [one.label, `${one.pictures} of ${shots}`]));
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
