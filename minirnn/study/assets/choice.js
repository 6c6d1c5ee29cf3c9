// What the page is about, and what of it is chosen.

const data = decoded(JSON.parse(document.getElementById("data").textContent));
const { inputs, outputs, layers } = data;
const L = outputs.labels.length;
const losses = outputs.losses.data;

// Everything that can lie under time, by name: inputs, and the words or frames that the loss is made of.
const axes = Object.fromEntries(inputs.map((axis) => [axis.name, axis]));
axes[outputs.name] = { ...outputs, kind: inputs.some(({ kind }) => kind === "series") ? "series" : "tokens" };

const chosen = { step: 0, logarithmic: false, norm: "dh", layer: 0, quantity: "dh", order: "number" };
const figures = []; // functions, each of which draws a figure of what is chosen
const still = []; // and those of figures that are always the same

function redraw() {
  for (const draw of figures) draw();
}
function setStep(step) {
  chosen.step = step;
  redraw();
}

const item = (axis, t) => `${t + 1} “${visible(axes[axis].labels[t])}”`;
const stepName = (step = chosen.step) => (step ? `“${visible(outputs.labels[step - 1])}”` : "the whole loss");
const lossSymbol = () => (chosen.step ? `L_{${chosen.step}}` : "L");
const lossOf = (step) => (step ? losses[step - 1] : outputs.whole);
const loss = (step) => (lossOf(step) === null ? "" : shown(lossOf(step)));
const markedOn = (axis) => (axis === outputs.name ? chosen.step - 1 : -1);
const stepOf = (axis, t) => (axis === outputs.name ? t + 1 : undefined);

// Where a layer keeps the gradients by unit of the chosen loss step: its entry in `backward`, and whose that is. Of a long example only
// some steps are kept; then it is that of the nearest one.
function keptStep({ parts }) {
  if (!parts) return { entry: chosen.step, step: chosen.step };
  const far = (step) => (Boolean(step) === Boolean(chosen.step) ? Math.abs(step - chosen.step) : Infinity);
  const entry = parts.reduce((best, step, k) => (far(step) < far(parts[best]) ? k : best), 0);
  return { entry, step: parts[entry] };
}
const gradientScale = (numbers, signed) => new Scale(signed ? -1 : 0, largest(numbers), chosen.logarithmic);

// A part of the page: a heading, what is seen, and figures.
let sections = 0;
function section(title, note) {
  const id = `part-${++sections}`;
  const heading = el("h2", { id }, title);
  const words = el("p", { class: "note", id: `${id}-note` }, ...note);
  return Object.assign(el("section", { "aria-labelledby": id }, heading, words), { heading, words });
}
const figure = (label, ...parts) => el("figure", { "aria-label": label }, ...parts);
function select(label, options, value, change) {
  const control = el("select", { onchange: () => change(control.value) }, ...options);
  control.value = value;
  return el("label", {}, `${label} `, control);
}

// What each quantity is: its equation, and in words.
const CELLS = {
  lstm: {
    i: ["i = σ(a_i)", "the input gate, how much of the candidate is written"],
    f: ["f = σ(a_f)", "the forget gate, how much of `c_{t−1}` is kept, and on the way back how much of `dc_t` reaches the step before"],
    g: ["g = tanh(a_g)", "the candidate, what could be written"],
    o: ["o = σ(a_o)", "the output gate, how much of the cell is shown"],
    c: ["c_t = f c_{t−1} + i g", "the cell, the layer’s memory"],
    h: ["h_t = o tanh(c_t)", "what the layer puts out"],
  },
  gru: {
    r: ["r = σ(z_r + a_r)", "the reset gate, how much of the past the candidate sees"],
    u: ["u = σ(z_u + a_u)", "the update gate, how much of `h_{t−1}` is kept"],
    n: ["n = tanh(z_n + r hn)", "the candidate, the state if nothing were kept"],
    h: ["h_t = n + u (h_{t−1} − n)", "the state, which the layer puts out"],
  },
  rnn: { h: ["h_t = φ(z_t + w_{hh} h_{t−1})", "the state, which the layer puts out"] },
};
const GRADIENTS = {
  dh: ["dh_t = ∂L/∂h_t", "the whole gradient of the state, everything that the loss reads from it at this step or later"],
  dc: ["dc_t = ∂L/∂c_t", "the whole gradient of the cell, of which the step before gets what the forget gate lets through"],
  dz: ["dz_t = ∂L/∂z_t", "the gradient of the gates before their nonlinearities, of which those of all weights are made"],
  dx: ["dx_t = ∂L/∂x_t", "the gradient of what the layer reads"],
  w_ih: ["dz_t^⊤ x_t", "what this step alone adds to the gradient of the input weights"],
  w_hh: ["da_t^⊤ h_{t−1}", "what this step alone adds to the gradient of the recurrent weights"],
  b: ["dz_t", "what this step alone adds to the gradient of the biases"],
};
const RANGES = { i: [0, 1], f: [0, 1], o: [0, 1], r: [0, 1], u: [0, 1], g: [-1, 1], n: [-1, 1] };
function explain(name, cell) {
  const [formula, words] = CELLS[cell]?.[name] ?? GRADIENTS[name] ?? [name, ""];
  return [math(formula), ...(words ? [": ", ...prose(words)] : []), ". "];
}
