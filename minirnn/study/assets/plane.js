// Elements, and the plane: rows and columns under one cursor.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const sheet = (width, height, ...children) => svg("svg", { "aria-hidden": true, width, height }, ...children);
const option = (value, label = value) => el("option", { value }, label);
function place(node, { left, top, width, height }) {
  Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
}

// Formulas with subscripts, c_t and h_{t−1}, and sentences with formulas between backticks.
function math(text) {
  const parts = text.split(/_(\{[^}]*\}|\S)/u);
  return el("span", { class: "math" }, ...parts.map((part, k) => (k % 2 ? el("sub", {}, part.replace(/[{}]/g, "")) : part)));
}
const prose = (text) => text.split("`").map((part, k) => (k % 2 ? math(part) : part));

// Arrow keys and the pointer move over a plane. The cell under the cursor is an element, which takes the focus and says what is there.
//   label  the accessible name;  note: the id of what describes it
//   read(row, column) -> { where, value, axis, t, step }: words, the number, the item of an axis that it belongs to, and the loss step that
//                        Enter or a click chooses
// `show` puts a drawing in place, and an area: rows, columns, width and height in pixels, box(row, column), at(x, y) -> [row, column] or
// null, where(axis, t) -> the box of an item, or null.
class Plane {
  static all = new Set();

  constructor(label, note, read) {
    this.read = read;
    this.cursor = [0, 0];
    this.cell = el("div", { role: "gridcell", tabindex: 0, class: "cell" });
    this.row = el("div", { role: "row" }, this.cell);
    this.twin = el("div", { class: "twin", hidden: "" });
    this.grid = el("div", { class: "plane", role: "grid", "aria-label": label, "aria-describedby": note }, this.row, this.twin);
    this.gutter = el("div", { class: "gutter", "aria-hidden": true });
    this.frame = el("div", { class: "frame" }, this.gutter, this.grid);
    this.readout = el("output", { class: "readout" });
    this.foot = el("div", { class: "foot" }, this.readout);
    this.cell.addEventListener("keydown", (event) => this.press(event));
    this.cell.addEventListener("focus", () => this.tell(...this.cursor, "polite"));
    this.grid.addEventListener("pointermove", (event) => this.point(event));
    this.grid.addEventListener("click", (event) => this.point(event, true));
    this.grid.addEventListener("pointerleave", () => Plane.mark());
    Plane.all.add(this);
  }
  // Pixels that a drawing may be wide without scrolling.
  get room() {
    return Math.max(120, this.frame.clientWidth - this.gutter.offsetWidth);
  }
  show(drawing, area, legend) {
    this.area = area;
    this.grid.replaceChildren(...drawing, this.twin, this.row);
    Object.assign(this.grid.style, { width: `${area.width}px`, height: `${area.height}px` });
    this.grid.setAttribute("aria-rowcount", area.rows);
    this.grid.setAttribute("aria-colcount", area.columns);
    this.foot.replaceChildren(...(legend ? [legend] : []), this.readout);
    this.move(...this.cursor);
  }
  // Scroll so that x can be seen, once for each loss step.
  reveal(x) {
    const { scrollLeft } = this.frame;
    if (chosen.step !== this.revealed && (x < scrollLeft || x > scrollLeft + this.room)) this.frame.scrollLeft = x - 0.7 * this.room;
    this.revealed = chosen.step;
  }
  move(row, column) {
    const [r, c] = (this.cursor = [clamp(row, 0, this.area.rows - 1), clamp(column, 0, this.area.columns - 1)]);
    const { where, value } = this.read(r, c);
    place(this.cell, this.area.box(r, c));
    this.cell.setAttribute("aria-label", `${where}: ${value}`);
    this.cell.setAttribute("aria-colindex", c + 1);
    this.row.setAttribute("aria-rowindex", r + 1);
    if (document.activeElement === this.cell) this.tell(r, c, "polite");
    else this.readout.replaceChildren();
  }
  tell(row, column, live) {
    const { where, value, axis, t } = this.read(row, column);
    this.readout.setAttribute("aria-live", live);
    this.readout.replaceChildren(el("span", { class: "where" }, where), " ", el("b", { class: "number" }, value));
    Plane.mark(axis, t);
  }
  point(event, click = false) {
    const { left, top } = this.grid.getBoundingClientRect();
    const found = this.area.at(event.clientX - left, event.clientY - top);
    if (!found) return;
    if (!click) return this.tell(...found, "off");
    this.move(...found);
    this.cell.focus({ preventScroll: true });
    this.choose();
  }
  choose() {
    const { step } = this.read(...this.cursor);
    if (step !== undefined) setStep(step);
  }
  press(event) {
    const [r, c] = this.cursor;
    const [rows, columns] = [this.area.rows, this.area.columns];
    const page = Math.ceil(rows / 8);
    const moves = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      PageUp: [r - page, c], PageDown: [r + page, c],
      Home: [event.ctrlKey ? 0 : r, 0], End: [event.ctrlKey ? rows - 1 : r, columns - 1],
    };
    if (event.key === "Enter") this.choose();
    else if (event.key in moves && !event.altKey && !event.metaKey) {
      this.move(...moves[event.key]);
      this.cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else return;
    event.preventDefault();
  }
  // The item that is looked at in one plane is marked in all.
  static mark(axis, t) {
    for (const { area, twin } of Plane.all) {
      const box = axis === undefined ? null : area?.where(axis, t);
      twin.hidden = !box;
      if (box) place(twin, box);
    }
  }
}

// Rows `line` pixels high, and columns `cell` wide, one for each item of `axis`. The drawing may go on below them, down to `height`.
function lattice(rows, columns, cell, line, axis, height = rows * line) {
  const all = { top: 0, height: rows * line };
  return {
    rows, columns, height, width: columns * cell,
    box: (r, c) => ({ left: c * cell, top: r * line, width: cell, height: line }),
    at: (x, y) => (y >= rows * line ? null : [clamp(Math.floor(y / line), 0, rows - 1), clamp(Math.floor(x / cell), 0, columns - 1)]),
    where: (name, t) => (name === axis ? { ...all, left: t * cell, width: cell } : null),
  };
}

// How wide a column is where n of them have so many pixels. A token needs enough for its word: where they do not fit, the figure scrolls.
function cellWidth(kind, n, pixels) {
  const fits = Math.min(84, pixels / n);
  const least = kind === "tokens" ? 15 : 5;
  return fits > 12 ? Math.max(least, Math.floor(fits)) : Math.max(least, Math.floor(10 * fits) / 10);
}
