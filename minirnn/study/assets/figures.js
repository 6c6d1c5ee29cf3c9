// The parts that figures are made of: elements, a plane under a cursor, heat maps, ribbons and the texts under an axis.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const place = (node, { left, top, width, height }) =>
  Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });

// Text with subscripts: c_t, h_{t−1}.
function math(text) {
  const parts = text.split(/_(\{[^}]*\}|\S)/u);
  return el("span", { class: "math" }, ...parts.map((part, k) => (k % 2 ? el("sub", {}, part.replace(/[{}]/g, "")) : part)));
}
// A sentence with formulas between backticks.
function prose(text) {
  return text.split("`").map((part, k) => (k % 2 ? math(part) : part));
}

// What all planes share: the item of an axis that is looked at, marked in each of them.
const planes = new Set();
function mark(axis, t) {
  for (const plane of planes) plane.mark(axis, t);
}

// Rows and columns under one cursor, which the arrow keys and the pointer move. A cell is an element: it has the focus and says what is there.
//   label      accessible name of the plane
//   read(row, column) -> { where, value, axis, t, step }: words, number, item of an axis, loss step to choose by Enter or a click
// A drawing is put in place by `show`, with rows, columns, box(row, column) in pixels, and at(x, y) -> [row, column].
class Plane {
  constructor(label, note, read) {
    this.read = read;
    this.cursor = [0, 0];
    this.cell = el("div", { role: "gridcell", tabindex: 0, class: "cell" });
    this.row = el("div", { role: "row" }, this.cell);
    this.twin = el("div", { class: "twin", hidden: true });
    this.grid = el("div", { class: "plane", role: "grid", "aria-label": label, "aria-describedby": note }, this.row, this.twin);
    this.gutter = el("div", { class: "gutter", "aria-hidden": true });
    this.frame = el("div", { class: "frame" }, this.gutter, this.grid);
    this.readout = el("output", { class: "readout" }, el("span", { class: "hint" }, "Point, or move with the arrow keys, to read numbers."));
    this.cell.addEventListener("keydown", (event) => this.key(event));
    this.cell.addEventListener("focus", () => this.tell(...this.cursor, "polite"));
    this.grid.addEventListener("pointermove", (event) => this.point(event, false));
    this.grid.addEventListener("click", (event) => this.point(event, true));
    this.grid.addEventListener("pointerleave", () => mark());
    planes.add(this);
  }
  show(drawing, { rows, columns, width, height, box, at, where = () => null }) {
    Object.assign(this, { rows, columns, box, at, where });
    this.grid.replaceChildren(...drawing, this.twin, this.row);
    Object.assign(this.grid.style, { width: `${width}px`, height: `${height}px` });
    this.grid.setAttribute("aria-rowcount", rows);
    this.grid.setAttribute("aria-colcount", columns);
    this.move(...this.cursor);
  }
  move(row, column) {
    this.cursor = [Math.max(0, Math.min(this.rows - 1, row)), Math.max(0, Math.min(this.columns - 1, column))];
    const [r, c] = this.cursor;
    const { where, value } = this.read(r, c);
    place(this.cell, this.box(r, c));
    this.cell.setAttribute("aria-label", `${where}: ${value}`);
    this.cell.setAttribute("aria-colindex", c + 1);
    this.row.setAttribute("aria-rowindex", r + 1);
    if (document.activeElement === this.cell) this.tell(r, c, "polite");
  }
  tell(row, column, live) {
    const { where, value, axis, t } = this.read(row, column);
    this.readout.setAttribute("aria-live", live);
    this.readout.replaceChildren(el("span", { class: "where" }, where), " ", el("b", { class: "number" }, value));
    mark(axis, t);
  }
  point(event, press) {
    const { left, top } = this.grid.getBoundingClientRect();
    const found = event.target === this.cell && !press ? this.cursor : this.at(event.clientX - left, event.clientY - top);
    if (!found) return;
    if (press) {
      this.move(...found);
      this.cell.focus({ preventScroll: true });
      this.choose();
    } else this.tell(...found, "off");
  }
  choose() {
    const { step } = this.read(...this.cursor);
    if (step !== undefined) setStep(step);
  }
  key(event) {
    const [r, c] = this.cursor;
    const page = Math.ceil(this.rows / 8);
    const moves = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      PageUp: [r - page, c], PageDown: [r + page, c],
      Home: [event.ctrlKey ? 0 : r, 0], End: [event.ctrlKey ? this.rows - 1 : r, this.columns - 1],
    };
    if (event.key === "Enter") this.choose();
    else if (event.key in moves && !event.altKey && !event.metaKey) {
      this.move(...moves[event.key]);
      this.cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else return;
    event.preventDefault();
  }
  mark(axis, t) {
    const box = axis === undefined ? null : this.where(axis, t);
    this.twin.hidden = !box;
    if (box) place(this.twin, box);
  }
}

// Rows and columns of one size, `cell` pixels wide and `line` high.
function lattice(rows, columns, cell, line, top = 0) {
  return {
    rows, columns, width: columns * cell, height: top + rows * line,
    box: (r, c) => ({ left: c * cell, top: top + r * line, width: cell, height: line }),
    at: (x, y) => (y > top + rows * line ? null : [Math.max(0, Math.min(rows - 1, Math.floor((y - top) / line))), Math.min(columns - 1, Math.floor(x / cell))]),
  };
}

// value(row, column) as coloured cells, one pixel each, which CSS makes as large as it must.
function heat(rows, columns, cell, line, value, scale, colour) {
  const canvas = el("canvas", { "aria-hidden": true, class: "heat", width: columns, height: rows });
  place(canvas, { left: 0, top: 0, width: columns * cell, height: rows * line });
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) pixels[r * columns + c] = colour(scale.place(value(r, c)));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// What the colours of a scale mean: a bar with numbers under it.
function legend(bar, scale, label) {
  const ticks = scale.ticks().map(({ value, place: share }) => {
    const tick = el("span", {}, shown(value));
    tick.style.left = `${100 * share}%`;
    return tick;
  });
  return el("div", { class: "legend" }, el("span", { class: "meaning" }, label, scale.logarithmic ? " (logarithmic)" : ""), el("div", {}, bar, el("div", { class: "ticks" }, ...ticks)));
}

// Texts under columns: slanted where each has room, else every few.
function texts(labels, kind, cell, centre, top, marked = -1) {
  const slanted = kind === "tokens" && cell >= 12;
  const longest = Math.max(...labels.map((label) => label.length));
  const every = slanted ? 1 : Math.max(1, Math.ceil((7 * longest + 10) / cell));
  const items = [];
  labels.forEach((label, c) => {
    if (c % every) return;
    const at = slanted ? `translate(${centre(c) + 3} ${top + 9}) rotate(-45)` : `translate(${centre(c)} ${top + 14})`;
    const ends = slanted ? "end" : every > 1 && c === 0 ? "start" : "middle";
    items.push(svg("text", { transform: at, "text-anchor": ends, class: c === marked ? "label marked" : "label" }, short(label)));
  });
  return items;
}
const short = (label) => { const letters = Array.from(visible(label)); return letters.length > 14 ? `${letters.slice(0, 13).join("")}…` : letters.join(""); };
function textHeight(labels, kind, cell) {
  const letters = Math.min(14, Math.max(...labels.map((label) => Array.from(label).length)));
  return kind === "tokens" && cell >= 12 ? 16 + 5.2 * letters : 22;
}

// The outline of a ribbon along y: points { x, half }, half its half width there. It is flat at each point and never wider than the wider end.
function ribbon(points, y) {
  const along = (list, sign) => list.map(({ x, half }, k) => {
    const here = `${x.toFixed(1)},${(y - sign * half).toFixed(2)}`;
    if (!k) return here;
    const middle = ((list[k - 1].x + x) / 2).toFixed(1);
    return `C${middle},${(y - sign * list[k - 1].half).toFixed(2)} ${middle},${here.split(",")[1]} ${here}`;
  }).join(" ");
  return `M${along(points, 1)} L${along([...points].reverse(), -1)} Z`;
}

// One quantity over the updates: lines { name, points: [step, value] }. Returns the drawing and where its points lie.
function chart(lines, width, height, logarithmic) {
  const [left, right, top, bottom] = [48, 8, 8, 22];
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const steps = [...new Set(lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = logarithmic ? [low / 2, 2 * high] : [low - 1, high + 1];
  const bend = logarithmic ? Math.log10 : (v) => v;
  const last = steps.at(-1) === steps[0] ? steps[0] + 1 : steps.at(-1);
  const x = (step) => left + ((step - steps[0]) / (last - steps[0])) * (width - left - right);
  const y = (value) => top + ((bend(high) - bend(value)) / (bend(high) - bend(low))) * (height - top - bottom);
  const middle = logarithmic ? Math.sqrt(low * high) : (low + high) / 2;
  const rules = [low, middle, high].flatMap((value) => [
    svg("line", { class: "rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    svg("text", { class: "label", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(3))).replaceAll("-", "−")),
  ]);
  const ends = [["start", steps[0]], ["end", last]].map(([anchor, step]) =>
    svg("text", { class: "label", x: x(step), y: height - 5, "text-anchor": anchor }, step.toLocaleString("en")));
  const curves = lines.map(({ name, points }) =>
    svg("path", { class: `curve ${name}`, d: points.map(([step, value], k) => `${k ? "L" : "M"}${x(step).toFixed(1)},${y(value).toFixed(1)}`).join("") }));
  const drawing = svg("svg", { "aria-hidden": true, width, height }, ...rules, ...ends, ...curves);
  const nearest = (at) => steps.reduce((best, step, k) => (Math.abs(x(step) - at) < Math.abs(x(steps[best]) - at) ? k : best), 0);
  const area = {
    rows: 1, columns: steps.length, width, height,
    box: (r, c) => ({ left: x(steps[c]) - 2, top, width: 4, height: height - top - bottom }),
    at: (px) => [0, nearest(px)],
  };
  return { drawing, area, steps };
}
