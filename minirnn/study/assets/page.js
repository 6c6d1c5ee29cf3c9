// The page: what is chosen, the figures that show it, and the controls that choose.

const data = decoded(JSON.parse(document.getElementById("data").textContent));
const { inputs, outputs, layers } = data;
const L = outputs.labels.length;
const outputKind = inputs.some((axis) => axis.kind === "series") ? "series" : "tokens";
const axes = { ...Object.fromEntries(inputs.map((axis) => [axis.name, axis])), [outputs.name]: { ...outputs, kind: outputKind, isOutput: true } };
const losses = outputs.losses.data;

const chosen = { step: 0, logarithmic: false, norm: "dh", layer: 0, quantity: "", order: "number" };

const CELLS = { lstm: "LSTM", gru: "GRU", rnn: "RNN" };
const EXPLAIN = {
  lstm: {
    i: ["`i = σ(a_i)`", "the input gate: how much of the candidate is written"],
    f: ["`f = σ(a_f)`", "the forget gate: how much of `c_{t−1}` is kept. On the way back it is how much of `dc_t` reaches step t − 1"],
    g: ["`g = tanh(a_g)`", "the candidate: what could be written"],
    o: ["`o = σ(a_o)`", "the output gate: how much of the cell is shown"],
    c: ["`c_t = f c_{t−1} + i g`", "the cell: the memory"],
    h: ["`h_t = o tanh(c_t)`", "what the layer puts out"],
  },
  gru: {
    r: ["`r = σ(z_r + a_r)`", "the reset gate: how much of the past the candidate sees"],
    u: ["`u = σ(z_u + a_u)`", "the update gate: how much of `h_{t−1}` is kept"],
    n: ["`n = tanh(z_n + r h_n)`", "the candidate: the new state, if nothing were kept"],
    h: ["`h_t = n + u (h_{t−1} − n)`", "the state, which the layer puts out"],
  },
  rnn: { h: ["`h_t = φ(z_t + w_{hh} h_{t−1})`", "the state, which the layer puts out"] },
  gradients: {
    dh: ["`dh_t = ∂L/∂h_t`", "the whole gradient of the output: everything that the loss reads from it, at this step or later"],
    dc: ["`dc_t = ∂L/∂c_t`", "the whole gradient of the cell. Only the forget gate stands between it and the step before: `dc_{t−1} = dc_t f + …`"],
    dz: ["`dz_t = ∂L/∂z_t`", "the gradient of the gates before their nonlinearities, from which those of all weights are made"],
    dx: ["`dx_t = ∂L/∂x_t`", "the gradient of what the layer reads"],
    w_ih: ["`dz_t^⊤ x_t`", "what this step alone adds to the gradient of the input weights"],
    w_hh: ["`dz_t^⊤ h_{t−1}`", "what this step alone adds to the gradient of the recurrent weights"],
    b: ["`dz_t`", "what this step alone adds to the gradient of the biases"],
  },
};
const RANGES = { i: [0, 1], f: [0, 1], o: [0, 1], r: [0, 1], u: [0, 1], g: [-1, 1], n: [-1, 1] };
const explained = (cell, name) => EXPLAIN[cell]?.[name] ?? EXPLAIN.gradients[name] ?? [`\`${name}\``, ""];
const sentence = ([formula, words]) => prose(words ? `${formula}, ${words}.` : `${formula}.`);

const item = (axis, t) => `t = ${t + 1} “${visible(axes[axis].labels[t])}”`;
const stepSymbol = (step) => (step ? `L_{${step}}` : "L");
const stepName = (step) => (step ? `“${visible(outputs.labels[step - 1])}”` : "the whole loss");
const gradientScale = (numbers, signed) => new Scale(signed ? -largest(numbers) : 0, largest(numbers), chosen.logarithmic);

// ---- figures: each draws itself again when what it shows is chosen anew, or the window is

const figures = [];
const bars = { signed: el("div", { class: "bar signed" }), gate: el("div", { class: "bar gate" }), shade: el("div", { class: "bar shade" }) };
const colours = (kind) => palette(getComputedStyle(bars[kind]).backgroundImage);
const bar = (kind) => el("div", { class: `bar ${kind}` });

let count = 0;
function section(title, note, ...parts) {
  const name = `section-${++count}`;
  const heading = el("h2", { id: name }, title);
  const words = el("p", { class: "note", id: `${name}-note` }, ...note);
  return Object.assign(el("section", { "aria-labelledby": name }, heading, words, ...parts), { heading, words });
}
function room(plane) {
  return plane.frame.clientWidth - plane.gutter.offsetWidth;
}
// The width of a column that shows n of them in so many pixels, or more, and then the frame scrolls.
function cellWidth(kind, n, pixels) {
  return Math.min(56, Math.max(kind === "tokens" ? 15 : 5, Math.floor((10 * pixels) / n) / 10));
}
function select(label, options, value, change) {
  const control = el("select", { onchange: () => change(control.value) }, ...options);
  control.value = value;
  return el("label", {}, `${label} `, control);
}
const option = (value, label = value) => el("option", { value }, label);

function rowTexts(plane, labels, line, top = 0, marked = -1) {
  const every = Math.ceil(13 / line);
  const items = labels.map((label, r) => {
    const text = el("bdi", { class: r === marked ? "marked" : "" }, short(label));
    text.style.top = `${top + (r + 0.5) * line}px`;
    return r % every ? null : text;
  });
  plane.gutter.replaceChildren(...items.filter(Boolean));
}
function labelled(axis, cell, top, drawn) {
  const { labels, kind, isOutput, grid } = axes[axis];
  const words = kind === "patches" ? labels.map((_, k) => (k % grid[1] ? "" : `row ${k / grid[1] + 1}`)) : labels;
  const height = textHeight(words, kind, cell);
  const marked = isOutput ? chosen.step - 1 : -1;
  const items = kind === "patches"
    ? words.flatMap((word, k) => (word && grid[1] * cell > 34 ? [svg("text", { class: "label", transform: `translate(${k * cell} ${top + 14})` }, word)] : []))
    : texts(words, kind, cell, (c) => (c + 0.5) * cell, top, marked);
  const lines = svg("svg", { "aria-hidden": true, width: labels.length * cell, height: top + height }, ...drawn, ...items);
  return { drawing: lines, height: top + height };
}

// ---- 1: the influence of each input

function influence(axis) {
  const numbers = data.influence[axis.name];
  const legends = el("div");
  const most = el("p", { class: "most" });
  const read = (r, c) => {
    const t = axis.kind === "patches" ? r * axis.grid[1] + c : c;
    const values = axis.kind === "series" ? ` · value ${Array.from(axis.values.at(t), shown).join(", ")}` : "";
    return { where: `${item(axis.name, t)}${values} · gradient norm`, value: shown(numbers.at(chosen.step)[t]), axis: axis.name, t };
  };
  const plane = new Plane(`Influence of each item of ${axis.name}`, "section-1-note", read);
  const parts = { tokens: shadedTokens, patches: shadedPatches, series: shadedSeries };
  figures.push(() => {
    const now = numbers.at(chosen.step);
    const scale = gradientScale(now, false);
    parts[axis.kind](plane, axis, now, scale);
    legends.replaceChildren(legend(bar("shade"), scale, math(`‖∂${stepSymbol(chosen.step)}/∂x_t‖`)));
    const order = ordered(now.length, "mean", (t) => [now[t]]).filter((t) => now[t] > 0).slice(0, 3);
    most.replaceChildren(...(order.length ? ["Largest: ", ...order.flatMap((t, k) => [k ? ", " : "", el("bdi", {}, visible(axis.labels[t])), ` ${shown(now[t])}`]), "."] : ["Nothing of it reaches this loss step."]));
  });
  const picture = axis.kind === "patches" ? el("div", { class: "pictures" }, labelledPicture(axis), plane.frame) : plane.frame;
  return el("figure", { "aria-label": `Influence of ${axis.name}` }, inputs.length > 1 ? el("figcaption", {}, axis.name) : "", picture, plane.readout, legends, most);
}
function shadedTokens(plane, axis, now, scale) {
  const spans = axis.labels.map((label, t) => {
    const span = el("bdi", { class: "token" }, visible(label));
    span.style.setProperty("--share", `${(100 * scale.share(now[t])).toFixed(2)}%`);
    return span;
  });
  const box = (r, c) => ({ left: spans[c].offsetLeft, top: spans[c].offsetTop, width: spans[c].offsetWidth, height: spans[c].offsetHeight });
  const inside = ({ left, top, width, height }, x, y) => x >= left && x < left + width && y >= top && y < top + height;
  const at = (x, y) => { const c = spans.findIndex((_, k) => inside(box(0, k), x, y)); return c < 0 ? null : [0, c]; };
  plane.grid.classList.add("flow");
  const where = (name, t) => (name === axis.name ? box(0, t) : null);
  plane.grid.replaceChildren(...spans);
  plane.show(spans, { rows: 1, columns: spans.length, box, at, where });
}
function picture(axis, size) {
  const [, S] = axis.image.shape;
  const canvas = el("canvas", { width: S, height: S, class: "picture", "aria-hidden": true });
  const image = new ImageData(S, S);
  const { data: pixels } = axis.image;
  for (let k = 0; k < S * S; k++) image.data.set([pixels[k], pixels[S * S + k], pixels[2 * S * S + k], 255], 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
  place(canvas, { left: 0, top: 0, width: size, height: size });
  return canvas;
}
function labelledPicture(axis) {
  const host = el("div", { class: "plain", role: "img", "aria-label": `The picture (${axis.name})` });
  figures.push(() => host.replaceChildren(picture(axis, pictureSize(host.parentNode))));
  return host;
}
const pictureSize = (host) => Math.min(300, host.clientWidth < 560 ? host.clientWidth - 2 : (host.clientWidth - 24) / 2);
// The picture under a veil, which is thin where the number is large.
function shadedPatches(plane, axis, now, scale) {
  const [rows, columns] = axis.grid;
  const size = pictureSize(plane.frame.parentNode);
  const veils = Array.from(now, (x, k) => svg("rect", {
    class: "veil", x: (k % columns) * size / columns, y: Math.floor(k / columns) * size / rows, width: size / columns, height: size / rows, "fill-opacity": (0.9 * (1 - scale.share(x))).toFixed(3),
  }));
  const area = { ...lattice(rows, columns, size / columns, size / rows), height: size };
  area.where = (name, t) => (name === axis.name ? area.box(Math.floor(t / columns), t % columns) : null);
  plane.show([picture(axis, size), svg("svg", { "aria-hidden": true, width: size, height: size }, ...veils)], area);
}
function shadedSeries(plane, axis, now, scale) {
  const [T, D] = axis.values.shape;
  const cell = cellWidth("series", T, room(plane));
  const [high, gap, low] = [110, 10, 54];
  const all = finite(axis.values.data);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const y = (value) => 6 + (1 - (value - least) / (most - least || 1)) * (high - 12);
  const lines = Array.from({ length: D }, (_, d) => {
    let pen = "M";
    const points = axis.labels.map((_, t) => {
      const value = axis.values.at(t)[d];
      const point = Number.isFinite(value) ? `${pen}${((t + 0.5) * cell).toFixed(1)},${y(value).toFixed(1)}` : "";
      pen = point ? "L" : "M";
      return point;
    });
    return svg("path", { class: `curve series-${d % 4}`, d: points.join("") });
  });
  const top = high + gap;
  const columns = Array.from(now, (x, t) => svg("rect", { class: "amount", x: t * cell + 0.5, width: Math.max(1, cell - 1), y: top + low * (1 - scale.share(x)), height: low * scale.share(x) }));
  const { drawing, height } = labelled(axis.name, cell, top + low, [...lines, ...columns, svg("line", { class: "rule", x1: 0, x2: T * cell, y1: top + low, y2: top + low })]);
  const area = { ...lattice(1, T, cell, top + low), height };
  area.where = (name, t) => (name === axis.name ? area.box(0, t) : null);
  rowTexts(plane, ["value", "", "gradient"], 60);
  plane.show([drawing], area);
}

// ---- 2: the gradient's way back through time

// Lanes of layers over all axes side by side. A layer goes on in the lane of the one that it starts from.
function lanes() {
  const names = [...new Set(layers.map((layer) => layer.axis))];
  const order = Object.keys(axes).filter((name) => names.includes(name));
  const rows = [];
  for (const layer of layers) {
    const free = (row) => !row.some((other) => other.axis === layer.axis);
    const before = rows.find((row) => free(row) && row.some((other) => layer.starts_from.includes(other.name)));
    if (before) before.push(layer);
    else rows.push([layer]);
  }
  return { order, rows };
}
function path() {
  const names = [...new Set(layers.flatMap((layer) => Object.keys(layer.norms)))];
  if (!names.length) return "";
  chosen.norm = names.includes("dh") ? "dh" : names[0];
  const { order, rows } = lanes();
  const lengths = order.map((name) => axes[name].labels.length);
  const [high, head, gap] = [72, 18, 1.5];
  const starts = lengths.map((_, k) => lengths.slice(0, k).reduce((sum, n) => sum + n + gap, 0));
  const columns = lengths.flatMap((n, k) => Array.from({ length: n }, (_, t) => ({ axis: order[k], t, at: starts[k] + t })));
  const now = (layer) => layer.norms[chosen.norm]?.at(chosen.step);
  const read = (r, c) => {
    const { axis, t } = columns[c];
    const layer = rows[r].find((other) => other.axis === axis);
    const value = layer && now(layer) ? shown(now(layer)[t]) : "none";
    return { where: `${layer?.name ?? "no layer"} · ${item(axis, t)} · ‖${chosen.norm}‖`, value, axis, t, step: axis === outputs.name ? t + 1 : undefined };
  };
  const part = section("The gradient’s way back through time", []);
  const plane = new Plane("Norm of the gradient by layer and time", part.words.id, read);
  const widest = el("p", { class: "most" });
  figures.push(() => {
    const cell = cellWidth(order.some((name) => axes[name].kind === "tokens") ? "tokens" : "series", lengths.reduce((sum, n) => sum + n + gap, -gap), room(plane));
    const scale = gradientScale(layers.flatMap((layer) => Array.from(now(layer) ?? [])), false);
    const half = (x) => (Number.isFinite(x) ? scale.share(x) : 0) * (high / 2 - 3);
    const x = (axis, t) => (starts[order.indexOf(axis)] + t + 0.5) * cell;
    const y = (layer) => rows.findIndex((row) => row.includes(layer)) * (head + high) + head + high / 2;
    const first = (layer) => (layer.reverse ? axes[layer.axis].labels.length - 1 : 0);
    const last = (layer) => (layer.reverse ? 0 : axes[layer.axis].labels.length - 1);
    const point = (layer, t) => ({ x: x(layer.axis, t), half: half(now(layer)[t]) });
    const drawn = [];
    for (const layer of layers.filter(now)) {
      const points = axes[layer.axis].labels.map((_, t) => point(layer, t));
      const edge = (k, sign) => ({ ...points.at(k), x: points.at(k).x + sign * cell / 2 });
      for (const before of layers.filter((other) => layer.starts_from.includes(other.name) && now(other))) {
        const [from, to] = [point(before, last(before)), point(layer, first(layer))];
        const straight = y(before) === y(layer) && !before.reverse && !layer.reverse;
        if (straight) drawn.push(svg("path", { class: "ribbon joint", d: ribbon([{ ...from, x: from.x + cell / 2 }, { ...to, x: to.x - cell / 2 }], y(layer)) }));
        else {
          const [x0, y0, x1, y1] = [from.x, y(before) + high / 2 - 2, to.x - cell / 2 - 4, y(layer)];
          drawn.push(svg("path", { class: "thread", d: `M${x1},${y1} C${x1 - 2},${y0} ${x1 - 14},${y0} ${x1 - 40},${y0} L${x0 + 8},${y0} Q${x0},${y0} ${x0},${y0 - 12}` }));
        }
      }
      drawn.push(svg("path", { class: "ribbon", "data-layer": layer.name, d: ribbon([edge(0, -1), ...points, edge(-1, 1)], y(layer)) }));
      drawn.push(svg("line", { class: "rule", x1: edge(0, -1).x, x2: edge(-1, 1).x, y1: y(layer), y2: y(layer) }));
      drawn.push(svg("text", { class: "label name", x: edge(0, -1).x, y: y(layer) - high / 2 - 5 }, layer.reverse ? `${layer.name} →` : `← ${layer.name}`));
    }
    const top = rows.length * (head + high);
    const labels = order.flatMap((name) => texts(axes[name].labels, axes[name].kind, cell, (t) => x(name, t), top, name === outputs.name ? chosen.step - 1 : -1));
    const height = top + Math.max(...order.map((name) => textHeight(axes[name].labels, axes[name].kind, cell)));
    const width = (columns.at(-1).at + 1) * cell;
    const box = (r, c) => ({ left: columns[c].at * cell, top: r * (head + high) + head, width: cell, height: high });
    const at = (px, py) => {
      const r = Math.floor(py / (head + high));
      const c = columns.findIndex((column) => px >= column.at * cell && px < (column.at + 1) * cell);
      return c < 0 ? null : [Math.min(rows.length - 1, r), c];
    };
    const where = (axis, t) => (order.includes(axis) ? { left: x(axis, t) - cell / 2, top: 0, width: cell, height: top } : null);
    plane.show([svg("svg", { "aria-hidden": true, width, height }, ...drawn, ...labels)], { rows: rows.length, columns: columns.length, width, height, box, at, where });
    part.words.replaceChildren(...sentence(explained("gradients", chosen.norm)), " The ribbon is as wide as its norm, and flows against the layer’s order of reading: arrows show where to.");
    widest.replaceChildren("Widest: ", math(`‖${chosen.norm}_t‖`), ` = ${shown(scale.ticks().at(-1).value)}, for ${stepName(chosen.step)}. `, chosen.logarithmic ? `Logarithmic: no width is ${10 ** DECADES} times less, or none.` : "Half as wide is half as much.");
  });
  const controls = el("div", { class: "controls" }, select("Gradient of", names.map((name) => option(name)), chosen.norm, (name) => { chosen.norm = name; redraw(); }));
  part.append(controls, el("figure", { "aria-label": "Ribbon of the gradient" }, plane.frame, plane.readout, widest));
  return part;
}

// ---- 3: units by time

function units() {
  const shownLayers = layers.filter((layer) => Object.keys(layer.forward).length || Object.keys(layer.backward).length);
  if (!shownLayers.length) return "";
  chosen.layer = layers.indexOf(shownLayers[0]);
  const layer = () => layers[chosen.layer];
  const numbers = () => layer().forward[chosen.quantity]?.at() ?? layer().backward[chosen.quantity].at(chosen.step);
  const T = () => axes[layer().axis].labels.length;
  let rows = [];
  const part = section("Unit by unit", []);
  const read = (r, c) => ({
    where: `unit ${rows[r]} · ${item(layer().axis, c)} · ${chosen.quantity}`, value: shown(numbers()[c * rows.length + rows[r]]), axis: layer().axis, t: c,
    step: layer().axis === outputs.name ? c + 1 : undefined,
  });
  const plane = new Plane("Heat map: units by time", part.words.id, read);
  const legends = el("div");
  const quantities = el("select", { onchange: () => { chosen.quantity = quantities.value; redraw(); } });
  const offer = () => {
    const groups = [["forward", layer().forward], ["gradients", layer().backward]].filter(([, arrays]) => Object.keys(arrays).length);
    quantities.replaceChildren(...groups.map(([label, arrays]) => el("optgroup", { label }, ...Object.keys(arrays).map((name) => option(name)))));
    const names = [...quantities.options].map((each) => each.value);
    if (!names.includes(chosen.quantity)) chosen.quantity = names.includes("dh") ? "dh" : names[0];
    quantities.value = chosen.quantity;
  };
  offer();
  figures.push(() => {
    const now = numbers();
    const isGradient = !(chosen.quantity in layer().forward);
    const count = now.length / T();
    const through = (array) => (unit) => Array.from({ length: T() }, (_, t) => array[t * count + unit]);
    const gradient = layer().backward.dh?.at(chosen.step);
    const sortable = gradient?.length === now.length ? gradient : now;
    rows = ordered(count, chosen.order, through(now), through(sortable));
    const axis = axes[layer().axis];
    const cell = cellWidth(axis.kind, T(), room(plane));
    const line = Math.max(2, Math.min(18, Math.floor(420 / count)));
    const range = RANGES[chosen.quantity] ?? [-largest(now), largest(now)];
    const scale = new Scale(range[0], range[1], isGradient && chosen.logarithmic);
    const kind = scale.signed ? "signed" : "gate";
    const value = (r, c) => now[c * count + rows[r]];
    const under = labelled(layer().axis, cell, count * line, []);
    const area = { ...lattice(count, T(), cell, line), height: under.height };
    area.where = (name, t) => (name === layer().axis ? { left: t * cell, top: 0, width: cell, height: count * line } : null);
    rowTexts(plane, rows.map(String), line);
    plane.show([under.drawing, heat(count, T(), cell, line, value, scale, colours(kind))], area);
    legends.replaceChildren(legend(bar(kind), scale, math(chosen.quantity)));
    part.words.replaceChildren(...sentence(explained(layer().cell, chosen.quantity)), isGradient ? [" Of ", math(stepSymbol(chosen.step)), "."].map((x) => x) : "", ` One row a unit, ${CELLS[layer().cell] ?? layer().cell} layer ${layer().name}.`);
    if (isGradient) part.words.replaceChildren(...sentence(explained(layer().cell, chosen.quantity)), ` Here for ${stepName(chosen.step)}, one row a unit of ${layer().name}.`);
  });
  const controls = el("div", { class: "controls" },
    select("Layer", layers.map((each, k) => option(k, each.name)).filter((_, k) => shownLayers.includes(layers[k])), chosen.layer, (k) => { chosen.layer = Number(k); offer(); redraw(); }),
    el("label", {}, "Quantity ", quantities),
    select("Order of rows", Object.entries(ORDERS).map(([name, { label }]) => option(name, label)), chosen.order, (order) => { chosen.order = order; redraw(); }));
  part.append(controls, el("figure", { "aria-label": "Units by time" }, plane.frame, plane.readout, legends), saturation(layer, T));
  return part;
}
function saturation(layer, T) {
  const rows = () => Object.keys(layer().saturation).flatMap((gate) => [[gate, 0], [gate, 1]]);
  const ends = (gate) => (RANGES[gate]?.[0] === 0 ? ["0", "1"] : ["−1", "1"]);
  const read = (r, c) => {
    const [gate, end] = rows()[r];
    return { where: `${gate} near ${ends(gate)[end]} · ${item(layer().axis, c)} · share of units`, value: shown(layer().saturation[gate].at(c)[end]), axis: layer().axis, t: c };
  };
  const note = el("p", { class: "note", id: "saturation-note" }, "Saturated gates pass almost no gradient: the share of units whose gate lies near an end of its range, where its nonlinearity is flat.");
  const plane = new Plane("Saturation of the gates by time", "saturation-note", read);
  const legends = el("div");
  const part = el("figure", { "aria-label": "Saturation" }, el("h3", {}, "Saturation"), note, plane.frame, plane.readout, legends);
  figures.push(() => {
    part.hidden = !rows().length;
    if (part.hidden) return;
    const axis = axes[layer().axis];
    const [cell, line] = [cellWidth(axis.kind, T(), room(plane)), 15];
    const scale = new Scale(0, 1);
    const value = (r, c) => layer().saturation[rows()[r][0]].at(c)[rows()[r][1]];
    const under = labelled(layer().axis, cell, rows().length * line, []);
    const area = { ...lattice(rows().length, T(), cell, line), height: under.height };
    area.where = (name, t) => (name === layer().axis ? { left: t * cell, top: 0, width: cell, height: rows().length * line } : null);
    rowTexts(plane, rows().map(([gate, end]) => `${gate} ≈ ${ends(gate)[end]}`), line);
    plane.show([under.drawing, heat(rows().length, T(), cell, line, value, scale, colours("gate"))], area);
    legends.replaceChildren(legend(bar("gate"), scale, "share of units"));
  });
  return part;
}

// ---- 4: attention

function attention({ name, axis, weights }) {
  const note = ["Each row adds up to 1: where the model looked before it said the word of that row. Enter or a click chooses the row as the loss step."];
  const part = section(name[0].toUpperCase() + name.slice(1), note);
  const read = (r, c) => ({ where: `“${visible(outputs.labels[r])}” looks at ${item(axis, c)}`, value: shown(weights.at(r)[c]), axis, t: c, step: r + 1 });
  const plane = new Plane(`Heat map of ${name}: outputs by ${axis}`, part.words.id, read);
  const legends = el("div");
  figures.push(() => {
    const { kind, labels } = axes[axis];
    const cell = cellWidth(kind, labels.length, room(plane));
    const line = Math.max(4, Math.min(22, Math.floor(420 / L)));
    const under = labelled(axis, cell, L * line, []);
    const area = { ...lattice(L, labels.length, cell, line), height: under.height };
    area.where = (other, t) => (other === axis ? { left: t * cell, top: 0, width: cell, height: L * line } : null);
    const most = largest(weights.data);
    const scale = new Scale(0, most > 0.5 ? 1 : most);
    rowTexts(plane, outputs.labels, line, 0, chosen.step - 1);
    const picked = chosen.step ? [svg("rect", { class: "picked", x: 0, y: (chosen.step - 1) * line, width: labels.length * cell, height: line })] : [];
    const frame = svg("svg", { "aria-hidden": true, width: labels.length * cell, height: L * line }, ...picked);
    plane.show([under.drawing, heat(L, labels.length, cell, line, (r, c) => weights.at(r)[c], scale, colours("gate")), frame], area);
    legends.replaceChildren(legend(bar("gate"), scale, "weight"));
  });
  if (axes[axis].kind === "patches") part.append(looking(name, axes[axis], weights));
  part.append(el("figure", { "aria-label": `${name}, outputs by ${axis}` }, plane.frame, plane.readout, legends));
  return part;
}
// The picture as the chosen word saw it; for the whole loss, the mean of all words.
function looking(name, axis, weights) {
  const now = () => (chosen.step ? weights.at(chosen.step - 1) : weights.at(0).map((_, k) => mean(Array.from({ length: L }, (__, l) => weights.at(l)[k]))));
  const read = (r, c) => ({ where: `${item(axis.name, r * axis.grid[1] + c)} · weight`, value: shown(now()[r * axis.grid[1] + c]), axis: axis.name, t: r * axis.grid[1] + c });
  const caption = el("figcaption");
  const plane = new Plane(`Where the model looks in ${axis.name}`, caption.id = `looking-${name}`, read);
  figures.push(() => {
    caption.replaceChildren(chosen.step ? `For ${stepName(chosen.step)}` : "Mean over all words");
    shadedPatches(plane, axis, now(), new Scale(0, largest(now())));
  });
  return el("figure", { "aria-label": `${name} over the picture` }, caption, el("div", { class: "pictures" }, plane.frame), plane.readout);
}

// ---- 5: training

function training() {
  const { train = [], valid = [] } = data.history;
  const names = (rows) => [...new Set(rows.flatMap(Object.keys))].filter((name) => !["step", "epoch", "elapsed", "per_second"].includes(name));
  const all = [...new Set([...names(train), ...names(valid)])];
  const part = section("Training", ["What the run’s log holds, over the updates of the weights. A loss and a norm of gradients have logarithmic axes where they span more than a factor of three."]);
  const grid = el("div", { class: "charts" });
  const points = (rows, name) => rows.filter((row) => Number.isFinite(row[name])).map((row) => [row.step, row[name]]);
  for (const name of all) {
    const lines = [{ name: "train", points: points(train, name) }, { name: "valid", points: points(valid, name) }].filter((line) => line.points.length);
    if (!lines.length) continue;
    const values = lines.flatMap((line) => line.points.map(([, value]) => value));
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const logarithmic = low > 0 && high > 3 * low && /loss|norm|perplexity|lr/.test(name);
    let steps = [];
    const title = { norm: "norm of the gradient", lr: "learning rate" }[name] ?? name;
    const read = (r, c) => {
      const found = lines.map((line) => [line.name, line.points.find(([step]) => step === steps[c])]).filter(([, point]) => point);
      return { where: `update ${steps[c].toLocaleString("en")}`, value: found.map(([kind, [, value]]) => `${lines.length > 1 ? `${kind} ` : ""}${shown(value)}`).join(", ") };
    };
    const plane = new Plane(`${title} over the updates`, part.words.id, read);
    figures.push(() => {
      const drawn = chart(lines, Math.min(plane.frame.clientWidth, 520), 150, logarithmic);
      steps = drawn.steps;
      plane.show([drawn.drawing], drawn.area);
    });
    const kinds = lines.map((line) => el("span", { class: `key ${line.name}` }, line.name === "train" ? "training" : "validation"));
    grid.append(el("figure", { "aria-label": title }, el("figcaption", {}, el("b", {}, title), logarithmic ? " (log) " : " ", ...kinds), plane.frame, plane.readout));
  }
  part.append(grid);
  return grid.childElementCount ? part : "";
}

// ---- 6: the numbers in tables

function tables() {
  const host = el("div");
  const table = (caption, head, rows) => el("div", { class: "frame" }, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((text) => el("td", {}, el("bdi", {}, text))))))));
  figures.push(() => {
    const said = outputs.predicted.length > 0;
    const parts = [];
    if (L) parts.push(table("The parts of the loss", ["step", "wanted", ...(said ? ["said"] : []), "loss"], outputs.labels.map((label, k) => [String(k + 1), visible(label), ...(said ? [visible(outputs.predicted[k])] : []), shown(losses[k])])));
    for (const [name, numbers] of Object.entries(data.influence)) {
      parts.push(table(`Gradient norm at each item of ${name}, for ${stepName(chosen.step)}`, ["t", "item", "norm"], axes[name].labels.map((label, t) => [String(t + 1), visible(label), shown(numbers.at(chosen.step)[t])])));
    }
    for (const layer of layers.filter((each) => Object.keys(each.norms).length)) {
      const names = Object.keys(layer.norms);
      parts.push(table(`Norms in ${layer.name}, for ${stepName(chosen.step)}`, ["t", "item", ...names], axes[layer.axis].labels.map((label, t) => [String(t + 1), visible(label), ...names.map((name) => shown(layer.norms[name].at(chosen.step)[t]))])));
    }
    host.replaceChildren(...parts);
  });
  const part = section("In numbers", ["The same as tables, for the chosen loss step."]);
  part.append(el("details", {}, el("summary", {}, "Show the tables"), host));
  return part;
}

// ---- the choice of the loss step

const slider = el("input", { type: "range", min: 0, max: L, value: 0, step: 1, id: "step", "aria-label": "Loss step", oninput: () => setStep(Number(slider.value)) });
const named = el("span", { class: "chosen" });
const chips = ["the whole loss", ...outputs.labels].map((label, step) => {
  const other = step && outputs.predicted.length && outputs.predicted[step - 1] !== label ? outputs.predicted[step - 1] : null;
  const loss = step ? losses[step - 1] : outputs.whole;
  const name = `${step ? `step ${step}, ${visible(label)}` : label}${loss === null ? "" : `, loss ${shown(loss)}`}${other === null ? "" : `, the model said ${visible(other)}`}`;
  const amount = el("i", { class: "amount" });
  amount.style.width = step ? `${(100 * losses[step - 1]) / (largest(losses) || 1)}%` : "0";
  const words = step ? el("bdi", {}, short(label)) : "whole loss";
  return el("button", { type: "button", role: "radio", class: "chip", "aria-label": name, onclick: () => setStep(step) }, words, ...(other === null ? [] : [el("s", {}, short(other))]), amount);
});
const choices = el("div", { class: "chips", role: "radiogroup", "aria-label": "Loss step, by its word", onkeydown: (event) => {
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -L, End: L };
  if (!(event.key in moves)) return;
  event.preventDefault();
  setStep(Math.max(0, Math.min(L, chosen.step + moves[event.key])));
  chips[chosen.step].focus({ preventScroll: true });
} }, ...chips);

function setStep(step) {
  chosen.step = step;
  const loss = step ? losses[step - 1] : outputs.whole;
  const words = step ? `${step} of ${L}: ${visible(outputs.labels[step - 1])}` : "the whole loss";
  slider.value = step;
  slider.setAttribute("aria-valuetext", loss === null ? words : `${words}, loss ${shown(loss)}`);
  named.replaceChildren(el("bdi", {}, words), loss === null ? "" : el("span", { class: "number" }, ` ${shown(loss)}`));
  chips.forEach((chip, k) => {
    chip.setAttribute("aria-checked", k === step);
    chip.tabIndex = k === step ? 0 : -1;
  });
  const { offsetLeft, offsetWidth } = chips[step];
  choices.scrollLeft = offsetLeft + offsetWidth / 2 - choices.clientWidth / 2;
  redraw();
}
function redraw() {
  question.replaceChildren(chosen.step ? "Which inputs made " : "Which inputs made the loss?", ...(chosen.step ? [el("bdi", {}, stepName(chosen.step)), "?"] : []));
  for (const draw of figures) draw();
}

// ---- the page

const themes = select("Colours", [option("", "as the system"), option("light"), option("dark")], "", (theme) => { document.documentElement.dataset.theme = theme; redraw(); });
const scales = select("Gradients", [option("", "linear"), option("log", "logarithmic")], "", (value) => { chosen.logarithmic = value === "log"; redraw(); });
const question = el("span");
const facts = [["model", data.model], ["run", data.run], ["loss", outputs.whole === null ? null : shown(outputs.whole)], ["minirnn", data.version]].filter(([, value]) => value);

const first = section(question, ["The darker, the larger ", math("‖∂L/∂x_t‖"), ": the norm of the gradient of the chosen loss with respect to that input. A small change there would change the loss most."]);
document.getElementById("page").append(
  el("header", {}, el("div", { class: "top" }, el("h1", {}, data.title), themes), el("p", { class: "lede" }, el("bdi", {}, data.text)),
    el("dl", {}, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))))),
  el("div", { class: "bench", role: "region", "aria-label": "What is differentiated" },
    el("div", { class: "line" }, el("label", { for: "step" }, "Loss step"), slider, named, scales), choices),
  el("main", {}));
document.body.append(el("div", { class: "palettes", "aria-hidden": true }, ...Object.values(bars)));
const main = document.querySelector("main");
for (const axis of inputs.filter(({ name }) => name in data.influence)) first.append(influence(axis));
if (Object.keys(data.influence).length) main.append(first);
main.append(path(), units(), ...data.attention.map(attention), training(), tables());
main.after(el("footer", {}, `Written by minirnn ${data.version}. Everything shown lies in this file. Numbers have four significant digits of float32. In a figure: arrow keys move, Home and End go to the ends, Enter chooses a word.`));
setStep(0);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
