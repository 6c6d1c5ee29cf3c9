// The page: its head, the choice of the loss step, and its parts in order. Then everything is drawn.

function tables() {
  const host = el("div");
  const cell = (text, k) => (k ? el("td", {}, el("bdi", {}, text)) : el("th", { scope: "row" }, text));
  const frame = (label) => ({ class: "frame", role: "region", "aria-label": label, tabindex: 0 }); // which the arrow keys scroll
  const table = (caption, head, rows) => el("div", frame(caption), el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))));
  const items = (axis) => axes[axis].labels.map((label, t) => [String(t + 1), visible(label)]);
  const looked = ({ axis, weights }, l) => `${visible(axes[axis].labels[peak(weights.at(l))])} ${shown(largest(weights.at(l)))}`;
  const draw = () => {
    if (!part.open) return;
    const said = outputs.predicted.length ? ["said"] : [];
    const head = ["step", "wanted", ...said, "loss", ...data.attention.map(({ name }) => `most ${name} at`)];
    const words = (label, l) => [String(l + 1), visible(label), ...said.map(() => visible(outputs.predicted[l]))];
    const row = (label, l) => [...words(label, l), loss(l + 1), ...data.attention.map((each) => looked(each, l))];
    const parts = L ? [table("The parts of the loss", head, outputs.labels.map(row))] : [];
    for (const [name, numbers] of Object.entries(data.influence)) {
      const rows = items(name).map((row, t) => [...row, shown(numbers.at(chosen.step)[t])]);
      parts.push(table(`Gradient norm at each item of ${name}, for ${stepName()}`, ["t", "item", "norm"], rows));
    }
    for (const { name, axis, norms } of layers) {
      const rows = items(axis).map((row, t) => [...row, ...Object.values(norms).map((numbers) => shown(numbers.at(chosen.step)[t]))]);
      if (Object.keys(norms).length) parts.push(table(`Norms in ${name}, for ${stepName()}`, ["t", "item", ...Object.keys(norms)], rows));
    }
    host.replaceChildren(...parts);
  };
  const part = el("details", { ontoggle: draw }, el("summary", {}, "Show the tables"), host);
  figures.push(draw);
  const whole = section("In numbers", ["The parts of the loss, and the norms of the gradients of the chosen one, as tables."]);
  whole.append(part);
  return whole;
}

// Loss steps by their words. One of them has the focus, as in any group of radio buttons.
function chip(label, step) {
  const said = step && outputs.predicted.length ? outputs.predicted[step - 1] || label : label;
  const wrong = said === label ? [] : [`the model said ${visible(said)}`];
  const value = loss(step) ? [`loss ${loss(step)}`] : [];
  const name = [step ? `${step}: ${visible(label)}` : label, ...value, ...wrong].join(", ");
  const amount = el("i", { class: "amount" });
  amount.style.width = step ? `${(100 * Math.max(0, losses[step - 1])) / (largest(losses) || 1)}%` : "0";
  const other = wrong.length ? [el("small", {}, "≠ ", el("bdi", {}, short(said)))] : [];
  const attributes = { type: "button", role: "radio", class: "chip", "aria-label": name, title: name, onclick: () => setStep(step) };
  return el("button", attributes, el("bdi", {}, short(label)), ...other, amount);
}
function bench() {
  const slide = () => setStep(Number(slider.value));
  const slider = el("input", { type: "range", min: 0, max: L, value: 0, step: 1, id: "step", oninput: slide });
  const named = el("span", { class: "chosen" });
  const chips = ["whole loss", ...outputs.labels].map(chip);
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -L, End: L };
  const choices = el("div", { class: "chips", role: "radiogroup", "aria-label": "Loss step by its word", onkeydown: (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    setStep(clamp(chosen.step + moves[event.key], 0, L));
    chips[chosen.step].focus({ preventScroll: true });
  } }, ...chips);
  figures.push(() => {
    const { step } = chosen;
    const words = step ? `${step} of ${L}: ${visible(outputs.labels[step - 1])}` : "the whole loss";
    slider.value = step;
    slider.setAttribute("aria-valuetext", loss(step) ? `${words}, loss ${loss(step)}` : words);
    named.replaceChildren(el("bdi", {}, words), el("span", { class: "number" }, ` ${loss(step)}`));
    chips.forEach((each, k) => {
      each.setAttribute("aria-checked", k === step);
      each.tabIndex = k === step ? 0 : -1;
    });
    choices.scrollLeft = chips[step].offsetLeft + (chips[step].offsetWidth - choices.clientWidth) / 2;
  });
  const scales = [option("", "linear"), option("log", "logarithmic")];
  const scale = select("Gradients", scales, "", (value) => { chosen.logarithmic = value === "log"; redraw(); });
  const choice = L ? [el("label", { for: "step" }, "Loss step"), slider, named] : [];
  const line = el("div", { class: "line" }, ...choice, scale);
  return el("div", { class: "bench", role: "region", "aria-label": "What is differentiated" }, line, ...(L ? [choices] : []));
}

function head() {
  const options = [option("", "as the system"), option("light"), option("dark")];
  const theme = select("Colours", options, "", (name) => { document.documentElement.dataset.theme = name; redraw(); });
  const facts = Object.entries({ model: data.model, run: data.run, loss: loss(0), minirnn: data.version }).filter(([, value]) => value);
  return el("header", {},
    el("div", { class: "top" }, el("h1", {}, tame(data.title)), theme),
    el("p", { class: "lede" }, el("bdi", {}, tame(data.text))),
    ...(data.note ? [el("p", { class: "note" }, el("bdi", {}, tame(data.note)))] : []),
    el("dl", {}, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
}
const foot = "In every figure: point at it, or go to it with Tab and move with the arrow keys, to read its numbers; Home and End lead to "
  + "the ends, and Enter chooses a word. Numbers are float32, with four significant digits. Everything shown lies in this file.";

const parts = [...influences(), ...path(), ...units(), ...(L ? data.attention : []).map(attention), ...training(), tables()];
document.getElementById("page").append(head(), bench(), el("main", {}, ...parts), el("footer", {}, foot));

function redrawAll() {
  // All heat maps begin at the same place, so that the same items stand below each other.
  const longest = data.attention.length ? Math.max(...outputs.labels.map((label) => Array.from(short(label)).length)) : 0;
  document.body.style.setProperty("--gutter", `${clamp(16 + 6.5 * longest, 60, innerWidth < 560 ? 60 : 110)}px`);
  for (const draw of [...still, ...figures]) draw();
}
redrawAll();
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  redrawAll();
});
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redrawAll);
