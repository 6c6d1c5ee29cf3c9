// The gradient's way back through time: a ribbon for every layer, as wide as the gradient's norm.

// Lanes of layers, all axes side by side. A layer lies in the lane of one that it starts from, where that lane is free under its axis.
function lanes() {
  const rows = [];
  for (const layer of layers) {
    const free = (row) => row.every((other) => other.axis !== layer.axis);
    const before = rows.find((row) => free(row) && row.some((other) => layer.starts_from.includes(other.name)));
    if (before) before.push(layer);
    else rows.push([layer]);
  }
  return rows;
}

const LANE = { head: 18, height: 72 }; // pixels: a layer's name, and the ribbon at its widest
const BETWEEN = 1.5; // columns between two axes

function path() {
  const names = [...new Set(layers.flatMap(({ norms }) => Object.keys(norms)))];
  if (!names.length) return [];
  chosen.norm = names.includes("dh") ? "dh" : names[0];
  const rows = lanes();
  const order = Object.keys(axes).filter((name) => layers.some(({ axis }) => axis === name));
  const columns = []; // { axis, t, at }: an item, and where it lies, in columns
  for (const axis of order) {
    const start = columns.length ? columns.at(-1).at + 1 + BETWEEN : 0;
    columns.push(...range(axes[axis].labels.length).map((t) => ({ axis, t, at: start + t })));
  }
  const start = (axis) => columns.find((column) => column.axis === axis).at;
  const wide = columns.at(-1).at + 1;
  const now = ({ norms }) => norms[chosen.norm]?.at(chosen.step);
  const read = (r, c) => {
    const { axis, t } = columns[c];
    const layer = rows[r].find((other) => other.axis === axis);
    const value = layer && now(layer) ? now(layer)[t] : null;
    const where = `${layer?.name ?? "no layer"} · ${item(axis, t)} · ‖${chosen.norm}‖`;
    return { where, value: shown(value), axis, t, step: stepOf(axis, t) };
  };
  const part = section("The gradient’s way back through time", []);
  const plane = new Plane("Norm of the gradient, by layer and time", part.words.id, read);
  const widest = el("p", { class: "most" });

  figures.push(() => {
    const cell = cellWidth(order.some((name) => axes[name].kind === "tokens") ? "tokens" : "series", wide, plane.room);
    const most = largest(layers.flatMap((layer) => finite(now(layer) ?? [])));
    const scale = gradientScale([most]);
    const centre = (axis, t) => (start(axis) + t + 0.5) * cell;
    const top = rows.length * (LANE.head + LANE.height);
    const labels = order.flatMap((name) => texts(axes[name], cell, (t) => centre(name, t), top, markedOn(name)));
    const height = top + Math.max(...order.map((name) => textHeight(axes[name], cell)));
    const ribbons = layers.filter(now).flatMap((layer) => drawLayer(layer, rows, now, scale, cell, centre));
    const area = {
      rows: rows.length, columns: columns.length, width: wide * cell, height,
      box: (r, c) => ({ left: columns[c].at * cell, top: (r + 1) * LANE.head + r * LANE.height, width: cell, height: LANE.height }),
      at: (x, y) => {
        const c = columns.findIndex((column) => x >= column.at * cell && x < (column.at + 1) * cell);
        return c < 0 ? null : [clamp(Math.floor(y / (LANE.head + LANE.height)), 0, rows.length - 1), c];
      },
      where: (axis, t) => (order.includes(axis) ? { left: centre(axis, t) - cell / 2, top: 0, width: cell, height: top } : null),
    };
    plane.show([sheet(wide * cell, height, ...ribbons, ...labels)], area);
    if (chosen.step && order.includes(outputs.name)) plane.reveal(centre(outputs.name, chosen.step - 1));
    const flows = "The ribbon is as wide as its norm. It flows against the order in which the layer reads; arrows show which way.";
    part.words.replaceChildren(...explain(chosen.norm), flows);
    const less = chosen.logarithmic ? "A tenth of it is a quarter less wide, 1/10000 has no width." : "Half as wide is half of it.";
    const symbol = chosen.norm in { dh: 1, dc: 1 } ? `${chosen.norm}_t` : chosen.norm;
    widest.replaceChildren("Widest: ", math(`‖${symbol}‖`), ` = ${shown(most)}, for ${stepName()}. ${less}`);
  });
  const options = names.map((name) => option(name, name.startsWith("d") ? name : `step’s part of d${name}`));
  const controls = el("div", { class: "controls" }, select("Norm of", options, chosen.norm, (name) => { chosen.norm = name; redraw(); }));
  part.append(controls, figure("The gradient’s way", plane.frame, plane.foot, widest));
  return [part];
}

// A layer's ribbon and name, and what joins it to the layers that it starts from.
function drawLayer(layer, rows, now, scale, cell, centre) {
  const middle = (other) => rows.findIndex((row) => row.includes(other)) * (LANE.head + LANE.height) + LANE.head + LANE.height / 2;
  const items = (other) => axes[other.axis].labels.length;
  const point = (other, t) => ({ x: centre(other.axis, t), half: (scale.place(now(other)[t]) || 0) * (LANE.height / 2 - 3) });
  const beside = (other, t, sign) => ({ ...point(other, t), x: centre(other.axis, t) + (sign * cell) / 2 });
  const y = middle(layer);
  const [left, right] = [beside(layer, 0, -1), beside(layer, items(layer) - 1, 1)];
  const points = range(items(layer)).map((t) => point(layer, t));
  const joints = layers.filter((other) => layer.starts_from.includes(other.name) && now(other)).map((before) => {
    if (middle(before) === y && !before.reverse && !layer.reverse) {
      return svg("path", { class: "ribbon joint", d: ribbon([beside(before, items(before) - 1, 1), left], y) });
    }
    // Under the lane of a layer that ends elsewhere: back to its last step, where its state came from.
    const [x, floor] = [centre(before.axis, before.reverse ? 0 : items(before) - 1), middle(before) + LANE.height / 2 - 1];
    const from = layer.reverse ? right.x : left.x - 4;
    const down = `C${from - 2},${floor} ${from - 14},${floor} ${from - 40},${floor}`;
    return svg("path", { class: "thread", d: `M${from},${y} ${down} L${x + 8},${floor} Q${x},${floor} ${x},${floor - 10}` });
  });
  return [
    ...joints,
    svg("path", { class: "ribbon", "data-layer": layer.name, d: ribbon([left, ...points, right], y) }),
    svg("line", { class: "rule", x1: left.x, x2: right.x, y1: y, y2: y }),
    svg("text", { class: "label", x: left.x, y: y - LANE.height / 2 - 5 }, layer.reverse ? `${layer.name} →` : `← ${layer.name}`),
  ];
}
