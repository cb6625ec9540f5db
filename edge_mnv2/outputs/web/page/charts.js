// A line over the last five minutes, one point a second, drawn as SVG.

const SPAN = 300;
const WIDTH = 300;
const HEIGHT = 100;
const SPACE = "http://www.w3.org/2000/svg";

export class Chart {
  // `format` turns a value into text with its `unit`; `name` begins what a screen reader says.
  constructor(id, name, format, unit = "") {
    const [svg, range, now, axis] = ["", "-range", "-now", "-axis"].map((part) => document.getElementById(id + part));
    Object.assign(this, { svg, range, now, axis, name, format, unit, values: [] });
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.grid = [0.02, 0.5, 0.98].map((y) => this.shape("line", "grid", { x1: 0, x2: WIDTH, y1: y * HEIGHT, y2: y * HEIGHT }));
    this.area = this.shape("path", "area");
    this.curve = this.shape("path", "curve");
  }

  set(values) {
    this.values = values.slice(-SPAN);
    this.draw();
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > SPAN) this.values.shift();
    this.draw();
  }

  shape(kind, style, attributes = {}) {
    const made = document.createElementNS(SPACE, kind);
    made.setAttribute("class", style);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    this.svg.append(made);
    return made;
  }

  draw() {
    const known = this.values.filter((value) => value !== null);
    if (!known.length) return;
    const low = Math.min(...known);
    const high = Math.max(...known);
    const top = ceiling(high);
    const left = WIDTH - this.values.length + 1;
    let line = "";
    let under = "";
    let run = [];
    const close = () => {
      if (run.length) {
        const path = run.map(([x, y]) => `${x} ${y}`).join("L");
        line += `M${path}`;
        under += `M${run[0][0]} ${HEIGHT}L${path}L${run[run.length - 1][0]} ${HEIGHT}Z`;
      }
      run = [];
    };
    this.values.forEach((value, index) => {
      if (value === null) close();
      else run.push([left + index, +(HEIGHT * (0.98 - 0.96 * (value / top))).toFixed(1)]);
    });
    close();
    this.curve.setAttribute("d", line);
    this.area.setAttribute("d", under);
    const last = this.values[this.values.length - 1];
    this.now.textContent = last === null ? "–" : this.format(last);
    this.range.textContent = `${this.format(low)} to ${this.format(high)}`;
    this.axis.textContent = `${top}${this.unit}`;
    this.svg.setAttribute(
      "aria-label",
      `${this.name}: ${last === null ? "unknown" : this.format(last)} now, between ${this.format(low)} and ${this.format(high)} in the last five minutes`,
    );
  }
}

// The next of 1, 2, 5, 10, ... above a value, so that the axis rarely jumps.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
