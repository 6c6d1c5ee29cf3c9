// Which inputs made this word: the norm of the gradient at each of them.

const SHADES = {
  tokens: "The stronger a word’s colour, the larger `‖∂L/∂x_t‖`, the norm of the gradient at its embedding",
  patches: "The clearer a patch, the larger `‖∂L/∂x_t‖`, the norm of the gradient at it",
  series: "The higher the bar, the larger `‖∂L/∂x_t‖`, the norm of the gradient at that frame",
};
const EXPECTED = { curves: "the wide pale line: what the model expected", map: "colour: what the model expected; marks: what came" };
const MANY = 6; // values of a frame that are drawn as a map, and not as curves
const MEANING = ": there a small change changes the loss most. ";

function influences() {
  const seen = inputs.filter(({ name }) => name in data.influence);
  if (!seen.length) return [];
  const kinds = [...new Set(seen.map(({ kind }) => kind))];
  const part = section("", kinds.flatMap((kind) => prose(SHADES[kind] + MEANING)));
  figures.push(() => part.heading.replaceChildren("Which inputs made ", el("bdi", {}, stepName()), "?"));
  part.append(...seen.map((axis) => influence(axis, part.words.id)));
  return [part];
}
function influence(axis, note) {
  const { name, labels, kind } = axis;
  const now = () => data.influence[name].at(chosen.step);
  const read = (r, c) => {
    const t = kind === "patches" ? r * axis.grid[1] + c : c;
    const value = kind === "series" ? ` · value ${inWords(axis, axis.values, t)}` : "";
    const expected = axis.expected ? ` · expected ${inWords(axis, axis.expected, t)}` : "";
    return { where: `${item(name, t)}${value}${expected} · gradient norm`, value: shown(now()[t]), axis: name, t };
  };
  const plane = new Plane(`Influence of each item of ${name}`, note, read);
  const most = el("p", { class: "most" });
  const shaded = { tokens: shadedTokens, patches: shadedPatches, series: shadedSeries }[kind];
  figures.push(() => {
    const alike = inputs.filter((other) => other.kind === kind && other.name in data.influence); // are comparable
    const scale = gradientScale(alike.map((other) => largest(data.influence[other.name].at(chosen.step))));
    shaded(plane, axis, now(), scale, kind === "tokens" ? legend("shade", scale, math(`‖∂${lossSymbol()}/∂x_t‖`)) : null);
    const top = ordered(labels.length, "mean", (t) => [now()[t]]).filter((t) => now()[t] > 0).slice(0, 3);
    const words = top.flatMap((t, k) => [k ? ", " : "Largest: ", el("bdi", {}, `“${visible(labels[t])}”`), ` ${shown(now()[t])}`]);
    most.replaceChildren(...(words.length ? [...words, "."] : ["Nothing of it reaches this part of the loss."]));
  });
  const expected = axis.expected && (axis.values.shape[1] > MANY ? EXPECTED.map : EXPECTED.curves);
  const names = [inputs.length > 1 && name, expected].filter(Boolean);
  const caption = names.length ? [el("figcaption", {}, names.join("; "))] : [];
  const frame = kind === "patches" ? el("div", { class: "pictures" }, plainPicture(axis), plane.frame) : plane.frame;
  return figure(`Influence of ${name}`, ...caption, frame, plane.foot, most);
}

function shadedTokens(plane, axis, now, scale, explained) {
  const spans = axis.labels.map((label, t) => {
    const span = el("bdi", { class: "token" }, visible(label));
    span.style.setProperty("--share", `${(100 * scale.place(now[t]) || 0).toFixed(2)}%`);
    return span;
  });
  const box = (span) => ({ left: span.offsetLeft, top: span.offsetTop, width: span.offsetWidth, height: span.offsetHeight });
  const at = (x, y) => {
    const inside = ({ left, top, width, height }) => x >= left && x < left + width && y >= top && y < top + height;
    const c = spans.findIndex((span) => inside(box(span)));
    return c < 0 ? null : [0, c];
  };
  plane.grid.classList.add("flow"); // the words lie as a text does, and not on a lattice
  const where = (name, t) => (name === axis.name ? box(spans[t]) : null);
  plane.show(spans, { rows: 1, columns: spans.length, box: (r, c) => box(spans[c]), at, where }, explained);
}

// The picture under a veil, which is thin where the number is large.
function shadedPatches(plane, axis, now, scale) {
  const [rows, columns] = axis.grid;
  const size = pictureSize(plane.frame.parentNode);
  const area = { ...lattice(rows, columns, size / columns, size / rows), width: size, height: size };
  area.where = (name, t) => (name === axis.name ? area.box(Math.floor(t / columns), t % columns) : null);
  const veils = Array.from(now, (x, t) => {
    const { left, top, width, height } = area.box(Math.floor(t / columns), t % columns);
    return svg("rect", { class: "veil", x: left, y: top, width, height, "fill-opacity": (0.92 * (1 - (scale.place(x) || 0))).toFixed(3) });
  });
  plane.show([picture(axis.image, size), sheet(size, size, ...veils)], area);
}
function plainPicture(axis) {
  const host = el("div", { class: "plain", role: "img", "aria-label": `The picture (${axis.name})` });
  still.push(() => {
    const size = pictureSize(host.parentNode);
    place(host, { left: 0, top: 0, width: size, height: size });
    host.replaceChildren(picture(axis.image, size));
  });
  return host;
}
const pictureSize = ({ clientWidth: width }) => Math.min(300, (width - 24) / 2);

// A frame in words: its numbers, the first of very many; of many that are 0 or 1, or probable so, the names of those above 1/2.
function inWords({ values, columns }, numbers, t) {
  const now = Array.from(numbers.at(t));
  if (now.length <= MANY || !finite(values.data).every((x) => x === 0 || x === 1)) {
    return now.slice(0, MANY).map((x) => shown(x)).join(", ") + (now.length > MANY ? ", …" : "");
  }
  return now.flatMap((x, d) => (x > 0.5 ? [columns[d] ?? `${d + 1}`] : [])).join(" ") || "none";
}

function shadedSeries(plane, axis, now, scale) {
  const [T, D] = axis.values.shape;
  const cell = cellWidth("series", T, plane.room);
  const x = (t) => (t + 0.5) * cell;
  const { high, drawn, under } = D > MANY ? seriesMap(plane, axis, cell) : seriesCurves(plane, axis, x);
  const low = 54; // of the bars
  const base = high + 10 + low;
  const bars = Array.from(now, (value, t) => {
    const height = low * (scale.place(value) || 0);
    return svg("rect", { class: "amount", x: t * cell + 0.5, width: Math.max(1, cell - 1), y: base - height, height });
  });
  const rule = svg("line", { class: "rule", x1: 0, x2: T * cell, y1: base, y2: base });
  const height = base + textHeight(axis, cell);
  const drawing = sheet(T * cell, height, rule, ...drawn, ...bars, ...texts(axis, cell, x, base, -1));
  plane.show([...under, drawing], lattice(1, T, cell, base, axis.name, height));
}
function seriesCurves(plane, { values, expected }, x) {
  rowTexts(plane, ["value", "norm"], 96);
  const [T, D] = values.shape;
  const known = finite([...values.data, ...(expected?.data ?? [])]);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const high = 110;
  const y = (value) => 6 + (1 - (value - least) / (most - least || 1)) * (high - 12);
  const curves = (frames, kind) => range(D).map((d) => curve(range(T).map((t) => [x(t), y(frames.at(t)[d])]), `series-${d % 4}${kind}`));
  return { high, drawn: [...(expected ? curves(expected, " expected") : []), ...curves(values, "")], under: [] };
}
// The values that change, the first one at the bottom as on a keyboard.
function seriesMap(plane, { values, expected, columns }, cell) {
  const [T, D] = values.shape;
  const rows = range(D).filter((d) => range(T).some((t) => values.at(t)[d] !== values.at(0)[d])).reverse();
  const line = clamp(Math.floor(240 / Math.max(1, rows.length)), 3, 12);
  rowTexts(plane, rows.map((d) => columns[d] ?? String(d + 1)), line);
  const numbers = expected ?? values;
  const known = finite(numbers.data);
  const scale = new Scale(Math.min(0, ...known), largest(known));
  const value = (r, t) => numbers.at(t)[rows[r]];
  const middle = (Math.min(...finite(values.data)) + Math.max(...finite(values.data))) / 2;
  const size = Math.min(line, cell) / 2;
  const at = (k, each) => (k + 0.5) * each - size / 2;
  const mark = (r, t) => svg("rect", { class: "came", x: at(t, cell), y: at(r, line), width: size, height: size });
  const marks = expected ? rows.flatMap((d, r) => range(T).filter((t) => values.at(t)[d] > middle).map((t) => mark(r, t))) : [];
  const map = rows.length ? heat({ rows: rows.length, columns: T }, cell, line, value, scale, scale.signed ? "signed" : "gate") : [];
  return { high: rows.length * line, drawn: marks, under: map };
}
