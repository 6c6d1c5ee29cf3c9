// The run's log: one small chart for every number in it.

const UNSEEN = ["step", "epoch", "elapsed", "per_second"];
const TITLES = { norm: "norm of the gradient", lr: "learning rate" };
const KINDS = { train: "training", valid: "validation" };

function training() {
  const rows = Object.values(data.history).flat();
  const names = new Set(rows.flatMap(Object.keys).filter((name) => !UNSEEN.includes(name)));
  const part = section("Training", ["The run’s log over the updates of its weights."]);
  const points = (rows, name) => rows.filter((row) => Number.isFinite(row[name])).map((row) => [row.step, row[name]]);
  const charts = [...names].flatMap((name) => {
    const all = Object.entries(data.history).map(([kind, rows]) => ({ kind, points: points(rows, name) }));
    const lines = all.filter((line) => line.points.length);
    return lines.length ? [chart(name, lines, part.words.id)] : [];
  });
  part.append(el("div", { class: "charts" }, ...charts));
  return charts.length ? [part] : [];
}

// lines: { kind, points: [step, value] }
function chart(name, lines, note) {
  const steps = [...new Set(lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const logarithmic = low > 0 && high > 3 * low && /loss|norm|perplexity|^lr$/.test(name);
  const title = TITLES[name] ?? name;
  const tables = lines.map((line) => [line.kind, new Map(line.points)]);
  const read = (r, c) => {
    const found = tables.filter(([, table]) => table.has(steps[c])).map(([kind, table]) => [KINDS[kind], shown(table.get(steps[c]))]);
    const value = found.map(([kind, number]) => (lines.length > 1 ? `${kind} ${number}` : number)).join(", ");
    return { where: `update ${steps[c].toLocaleString("en")}`, value };
  };
  const plane = new Plane(`${title} over the updates`, note, read);
  still.push(() => drawChart(plane, lines, steps, low, high, logarithmic));
  const keys = lines.map(({ kind }) => el("span", { class: `key ${kind}` }, KINDS[kind]));
  return figure(title, el("figcaption", {}, el("b", {}, title), logarithmic ? " (log)" : "", ...keys), plane.frame, plane.foot);
}

function drawChart(plane, lines, steps, low, high, logarithmic) {
  const [width, height] = [Math.min(plane.room, 480), 150];
  const [left, right, top, bottom] = [50, 8, 8, 22];
  const bend = logarithmic ? Math.log10 : (value) => value;
  const share = (from, to, value) => (from === to ? 0.5 : (value - from) / (to - from));
  const x = (step) => left + share(steps[0], steps.at(-1), step) * (width - left - right);
  const y = (value) => height - bottom - share(bend(low), bend(high), bend(value)) * (height - top - bottom);
  const middle = logarithmic ? Math.sqrt(low * high) : (low + high) / 2;
  const rules = [...new Set([low, middle, high])].flatMap((value) => [
    svg("line", { class: "rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    svg("text", { class: "label", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tick(value)),
  ]);
  const ends = [...new Set([steps[0], steps.at(-1)])].map((step, k) =>
    svg("text", { class: "label", x: x(step), y: height - 5, "text-anchor": k ? "end" : "start" }, step.toLocaleString("en")));
  const curves = lines.map(({ kind, points }) => curve(points.map(([step, value]) => [x(step), y(value)]), kind));
  const nearest = (at) => steps.reduce((best, step, k) => (Math.abs(x(step) - at) < Math.abs(x(steps[best]) - at) ? k : best), 0);
  plane.show([sheet(width, height, ...rules, ...ends, ...curves)], {
    rows: 1, columns: steps.length, width, height,
    box: (r, c) => ({ left: x(steps[c]) - 2, top, width: 4, height: height - top - bottom }),
    at: (px) => [0, nearest(px)],
    where: () => null,
  });
}
function tick(value) {
  const size = Math.abs(value);
  const text = size && size < 1e-2 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}
