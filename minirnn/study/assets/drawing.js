// What is drawn on planes: heat maps, legends, the texts along an axis, ribbons, curves and pictures.

// value(row, column) as coloured cells: one pixel each, which the browser makes as large as it must.
function heat(area, cell, line, value, scale, kind) {
  const { rows, columns } = area;
  const canvas = el("canvas", { "aria-hidden": true, class: "heat", width: columns, height: rows });
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const colour = palette(getComputedStyle(BARS[kind]).backgroundImage);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) pixels[r * columns + c] = colour(scale.place(value(r, c)));
  canvas.getContext("2d").putImageData(image, 0, 0);
  const sieve = el("div", { class: "sieve" }); // thin lines between cells that are large enough for them
  const box = { left: 0, top: 0, width: columns * cell, height: rows * line };
  place(canvas, box);
  place(sieve, box);
  sieve.style.backgroundSize = `${cell >= 16 ? `${cell}px` : "0"} 100%, 100% ${line >= 8 ? `${line}px` : "0"}`;
  return [canvas, sieve];
}

// The colours lie in the style sheet, as the gradients of the bars of legends.
const bar = (kind) => el("div", { class: `bar ${kind}` });
const BARS = { signed: bar("signed"), gate: bar("gate"), shade: bar("shade") };
document.body.append(el("div", { class: "palettes", "aria-hidden": true }, ...Object.values(BARS)));

function legend(kind, scale, meaning) {
  const ticks = scale.ticks().map((tick) => {
    const text = el("span", {}, shown(tick.value, tick.place % 0.5 ? 2 : 4));
    text.style.left = `${100 * tick.place}%`;
    return text;
  });
  const words = el("span", {}, meaning, scale.logarithmic ? ", logarithmic" : "");
  return el("div", { class: "legend" }, words, el("div", {}, bar(kind), el("div", { class: "ticks" }, ...ticks)));
}

// Texts under columns: slanted where each has room, else every few. centre(t): the middle of a column.
const slanted = (kind, cell) => kind === "tokens" && cell >= 12;
function texts({ labels, kind, grid }, cell, centre, top, marked) {
  if (kind === "patches") { // of which only rows are named
    const fits = grid[1] * cell > 40;
    return range(fits ? grid[0] : 0).map((row) => svg("text", { class: "label", x: row * grid[1] * cell, y: top + 14 }, `row ${row + 1}`));
  }
  const slant = slanted(kind, cell);
  const every = slant ? 1 : Math.max(1, Math.ceil((7 * Math.max(...labels.map((label) => short(label).length)) + 16) / cell));
  return labels.flatMap((label, t) => {
    const near = every > 1 && (Math.abs(t - marked) < every && marked >= 0 || t + every / 2 > labels.length); // to another text, or the end
    if (t !== marked && (t % every || near)) return [];
    const name = { class: t === marked ? "label marked" : "label" };
    const turned = { transform: `translate(${centre(t) + 4} ${top + 10}) rotate(-45)`, "text-anchor": "end" };
    if (slant) return [svg("text", { ...name, ...turned }, short(label))];
    const first = t === 0 && every > 1; // in the middle it would stick out on the left
    return [svg("text", { ...name, x: first ? 0 : centre(t), y: top + 14, "text-anchor": first ? "start" : "middle" }, short(label))];
  });
}
function textHeight({ labels, kind }, cell) {
  return slanted(kind, cell) ? 18 + 5.2 * Math.max(...labels.map((label) => Array.from(short(label)).length)) : 22;
}
// The same of the rows of a plane.
function rowTexts(plane, labels, line, marked = -1) {
  const every = Math.ceil(13 / line);
  const items = labels.flatMap((label, r) => {
    if (r % every) return [];
    const text = el("bdi", { class: r === marked ? "marked" : "" }, short(label));
    text.style.top = `${(r + 0.5) * line}px`;
    return [text];
  });
  plane.gutter.replaceChildren(...items);
}

// The outline of a ribbon along y through points { x, half }: half its width there. Between points it is never wider than at the wider one.
function ribbon(points, y) {
  const along = (list, sign) => list.map(({ x, half }, k) => {
    const [here, level] = [x.toFixed(1), (y - sign * half).toFixed(2)];
    if (!k) return `${here},${level}`;
    const middle = ((list[k - 1].x + x) / 2).toFixed(1);
    return `C${middle},${(y - sign * list[k - 1].half).toFixed(2)} ${middle},${level} ${here},${level}`;
  }).join(" ");
  return `M${along(points, 1)} L${along([...points].reverse(), -1)} Z`;
}

// A curve through points [x, y] that is broken where one is no number. A point by itself is a dot.
function curve(points, name) {
  const known = (point) => point?.every(Number.isFinite);
  const step = (k) => `${known(points[k - 1]) ? "L" : "M"}${points[k].map((x) => x.toFixed(1))}${known(points[k - 1]) ? "" : "h0"}`;
  const d = range(points.length).filter((k) => known(points[k])).map(step).join("");
  return svg("path", { class: `curve ${name}`, d });
}

// (3, S, S) red, green and blue.
function picture(image, size) {
  const [, S] = image.shape;
  const canvas = el("canvas", { width: S, height: S, class: "picture", "aria-hidden": true });
  const pixels = new ImageData(S, S);
  const [red, green, blue] = range(3).map((k) => image.at(k));
  red.forEach((_, k) => pixels.data.set([red[k], green[k], blue[k], 255], 4 * k));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  place(canvas, { left: 0, top: 0, width: size, height: size });
  return canvas;
}
