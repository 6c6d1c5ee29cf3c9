// Units by time: gates, states and gradients of a layer, and how saturated its gates are.

const layer = () => layers[chosen.layer];
const times = () => axes[layer().axis].labels.length;

// A heat map over the time of an axis, with the texts under it. Returns how wide its cells are.
function timeMap(plane, axis, rows, line, value, scale, kind, meaning, labels, marked = -1) {
  rowTexts(plane, labels, line, marked);
  const T = axes[axis].labels.length;
  const cell = cellWidth(axes[axis].kind, T, plane.room);
  const height = rows * line + textHeight(axes[axis], cell);
  const area = lattice(rows, T, cell, line, axis, height);
  const under = sheet(T * cell, height, ...texts(axes[axis], cell, (t) => (t + 0.5) * cell, rows * line, markedOn(axis)));
  const box = marked < 0 ? [] : [svg("rect", { class: "picked", x: 0, y: marked * line, width: T * cell, height: line })];
  const over = sheet(T * cell, rows * line, ...box);
  plane.show([under, ...heat(area, cell, line, value, scale, kind), over], area, legend(kind, scale, meaning));
  return cell;
}

function units() {
  const seen = layers.filter(({ forward, backward }) => Object.keys(forward).length + Object.keys(backward).length);
  if (!seen.length) return [];
  chosen.layer = layers.indexOf(seen[0]);
  const isGradient = () => !(chosen.quantity in layer().forward);
  const gradient = (name) => layer().backward[name]?.at(keptStep(layer()).entry);
  const numbers = () => (isGradient() ? gradient(chosen.quantity) : layer().forward[chosen.quantity].data);
  let order = []; // the unit of each row
  const read = (r, c) => {
    const whose = isGradient() ? ` of ${stepName(keptStep(layer()).step)}` : "";
    const where = `unit ${order[r]} · ${item(layer().axis, c)} · ${chosen.quantity}${whose}`;
    return { where, value: shown(numbers()[c * order.length + order[r]]), axis: layer().axis, t: c, step: stepOf(layer().axis, c) };
  };
  const part = section("Unit by unit", []);
  const plane = new Plane("Units by time", part.words.id, read);

  figures.push(() => {
    const now = numbers();
    const H = now.length / times();
    const through = (array) => (unit) => range(times()).map((t) => array[t * H + unit]);
    const sortable = gradient("dh")?.length === now.length ? gradient("dh") : now;
    order = ordered(H, chosen.order, through(now), through(sortable));
    const most = largest(now);
    const scale = new Scale(...(RANGES[chosen.quantity] ?? [-most, most]), isGradient() && chosen.logarithmic);
    const line = clamp(Math.round(512 / H), 1, 18);
    const value = (r, c) => now[c * H + order[r]];
    const cell = timeMap(plane, layer().axis, H, line, value, scale, scale.signed ? "signed" : "gate", math(chosen.quantity), order.map(String));
    if (isGradient() && chosen.step) plane.reveal((Math.floor(peak(now) / H) + 0.5) * cell);
    const { step } = keptStep(layer());
    const instead = step === chosen.step ? "" : `, the nearest to ${stepName()} that is kept unit by unit`;
    const whose = isGradient() ? `Here for ${stepName(step)}${instead}. ` : "";
    part.words.replaceChildren(...explain(chosen.quantity, layer().cell), whose, `Each row is a unit of ${layer().name}.`);
  });

  const quantity = select("Quantity", [], "", (name) => { chosen.quantity = name; redraw(); });
  const offer = () => {
    const groups = [["forward", layer().forward], ["gradients", layer().backward]].map(([label, arrays]) => [label, Object.keys(arrays)]);
    const filled = groups.filter(([, names]) => names.length);
    quantity.control.replaceChildren(...filled.map(([label, names]) => el("optgroup", { label }, ...names.map((name) => option(name)))));
    const names = [...quantity.control.options].map(({ value }) => value);
    if (!names.includes(chosen.quantity)) chosen.quantity = names.includes("dh") ? "dh" : names[0];
    quantity.control.value = chosen.quantity;
  };
  offer();
  const names = seen.map((each) => option(layers.indexOf(each), each.name));
  const orders = Object.entries(ORDERS).map(([name, { label }]) => option(name, label));
  const controls = el("div", { class: "controls" },
    select("Layer", names, chosen.layer, (k) => { chosen.layer = Number(k); offer(); redraw(); }),
    quantity,
    select("Order of rows", orders, chosen.order, (name) => { chosen.order = name; redraw(); }));
  part.append(controls, figure("Units by time", plane.frame, plane.foot), saturation());
  return [part];
}

function saturation() {
  const rows = () => Object.keys(layer().saturation).flatMap((gate) => [[gate, 0], [gate, 1]]);
  const name = ([gate, end]) => `${gate} ≈ ${end ? "1" : RANGES[gate]?.[0] === 0 ? "0" : "−1"}`;
  const value = (r, c) => layer().saturation[rows()[r][0]].at(c)[rows()[r][1]];
  const where = (r, c) => `${name(rows()[r])} · ${item(layer().axis, c)} · share of units`;
  const read = (r, c) => ({ where: where(r, c), value: shown(value(r, c)), axis: layer().axis, t: c });
  const words = "The share of units whose gate lies near an end of its range, where it is flat and lets little gradient through.";
  const note = el("p", { class: "note", id: "saturation-note" }, words);
  const plane = new Plane("Saturation of the gates by time", note.id, read);
  const part = figure("Saturation", el("h3", {}, "Saturated gates"), note, plane.frame, plane.foot);
  figures.push(() => {
    part.hidden = !rows().length;
    if (!part.hidden) timeMap(plane, layer().axis, rows().length, 15, value, new Scale(0, 1), "gate", "share of units", rows().map(name));
  });
  return part;
}
