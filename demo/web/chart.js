// Line charts in SVG: a window of time that ends now and grows to five minutes, gaps where nothing was measured.

import { el, svg, text } from "./dom.js";
import { NONE, age } from "./format.js";

const HEIGHT = 170;
const MARGIN = { left: 44, right: 8, top: 8, bottom: 20 };
const SHORTEST = 60_000; // ms shown at least
const LONGEST = 300_000;

export class LineChart {
  // `series`: [{name, column, style}]; `style` is one of the line styles in style.css: colour and dashes.
  constructor(figure, series, format) {
    this.series = series;
    this.format = format;
    this.rows = [];
    this.pointer = null;
    this.width = 0;
    this.values = series.map(() => el("b"));
    const legend = series.map((s, i) => {
      const swatch = svg("svg", { viewBox: "0 0 22 8", class: "swatch", "aria-hidden": "true" });
      swatch.append(svg("path", { d: "M0 4H22", class: `line ${s.style}` }));
      return el("li", "", swatch, ` ${s.name} `, this.values[i]);
    });
    this.when = el("span", "when");
    this.picture = svg("svg", { class: "chart", role: "img", height: HEIGHT });
    this.grid = svg("g");
    this.cursor = svg("path", { class: "cursor" });
    this.lines = series.map((s) => svg("path", { class: `line ${s.style}` }));
    this.picture.append(this.grid, ...this.lines, this.cursor);
    figure.append(this.picture, el("figcaption", "", el("ul", "legend", ...legend), this.when));
    this.picture.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(([entry]) => this.resize(entry.contentRect.width)).observe(figure);
  }

  // `rows`: of the history, oldest first; `columns`: their names.
  show(rows, columns) {
    this.rows = rows;
    this.time = columns.indexOf("time");
    this.index = this.series.map((s) => columns.indexOf(s.column));
    this.draw();
  }

  resize(width) {
    this.width = width;
    this.draw();
  }

  point(x) {
    this.pointer = x;
    this.draw();
  }

  draw() {
    const { width } = this;
    if (width === 0 || this.rows.length === 0) return;
    const now = this.rows.at(-1)[this.time];
    const rows = this.rows.filter((row) => row[this.time] > now - LONGEST);
    const span = Math.max(SHORTEST, now - rows[0][this.time]);
    const top = ceiling(Math.max(0, ...rows.flatMap((row) => this.index.map((i) => row[i] ?? 0))));
    const x = (time) => width - MARGIN.right - ((now - time) / span) * (width - MARGIN.left - MARGIN.right);
    const y = (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    this.drawGrid(width, top, y, x, now, span);
    this.index.forEach((i, n) => {
      const points = rows.map((row) => (row[i] == null ? null : [x(row[this.time]), y(row[i])]));
      this.lines[n].setAttribute("d", path(points));
    });
    this.drawCursor(rows, x);
  }

  drawGrid(width, top, y, x, now, span) {
    const lines = [0, 0.5, 1].map((part) => {
      const line = svg("path", { d: `M${MARGIN.left} ${y(part * top)}H${width - MARGIN.right}`, class: "grid" });
      const label = svg("text", { x: MARGIN.left - 6, y: y(part * top) + 4, class: "tick end" });
      label.textContent = this.format(part * top).replace(/ .*/, "");
      return [line, label];
    });
    const times = [[span, age(span), "start"], [span / 2, age(span / 2), "middle"], [0, "now", "end"]];
    const labels = times.map(([ago, name, anchor]) => {
      const label = svg("text", { x: x(now - ago), y: HEIGHT - 4, class: `tick ${anchor}` });
      label.textContent = name;
      return label;
    });
    this.grid.replaceChildren(...lines.flat(), ...labels);
  }

  // The legend shows the values under the pointer, else the newest.
  drawCursor(rows, x) {
    let shown = rows.at(-1);
    this.cursor.setAttribute("d", "");
    if (this.pointer !== null) {
      const distance = (row) => Math.abs(x(row[this.time]) - this.pointer);
      shown = rows.reduce((best, row) => (distance(row) < distance(best) ? row : best));
      this.cursor.setAttribute("d", `M${x(shown[this.time])} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}`);
    }
    const values = this.index.map((i) => (shown[i] == null ? NONE : this.format(shown[i])));
    values.forEach((value, n) => text(this.values[n], value));
    const back = Math.round((rows.at(-1)[this.time] - shown[this.time]) / 1000);
    text(this.when, back === 0 ? "now" : `${back} s ago`);
    this.picture.setAttribute("aria-label", this.series.map((s, n) => `${s.name}: ${values[n]}`).join(", "));
  }
}

const SAMPLES = 60; // at least as many wide

// A small line without axes; `label` says in words what it shows.
export function sparkline() {
  const line = svg("path", { class: "line spark" });
  const root = svg("svg", { viewBox: "0 0 120 22", preserveAspectRatio: "none", class: "sparkline", role: "img" });
  root.append(line);
  return {
    root,
    show(values, label) {
      const step = 120 / (Math.max(SAMPLES, values.length) - 1);
      const top = Math.max(...values, 1e-9);
      const points = values.map((value, i) => [120 - (values.length - 1 - i) * step, 20.5 - (value / top) * 19]);
      line.setAttribute("d", path(points));
      root.setAttribute("aria-label", label);
    },
  };
}

// A line through the points; a missing one (null) is a gap, a lonely one a dot.
function path(points) {
  const parts = [];
  points.forEach((point, i) => {
    if (point === null) return;
    const [x, y] = point.map((coordinate) => coordinate.toFixed(1));
    const begins = (points[i - 1] ?? null) === null;
    parts.push(`${begins ? "M" : "L"}${x} ${y}`);
    if (begins && (points[i + 1] ?? null) === null) parts.push("h0.1");
  });
  return parts.join("");
}

// The next round number, whose half is round too: where the axis ends.
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((candidate) => candidate >= value * 0.999) ?? 10 * power;
}
