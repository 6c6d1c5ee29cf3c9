// Where the model looked before it said each word.

function attention({ name, axis, weights }) {
  const T = axes[axis].labels.length;
  const note = "Each row adds up to 1: where the model looked before it said that row’s word.";
  const part = section(name[0].toUpperCase() + name.slice(1), [note, " Enter or a click chooses the word as the loss step."]);
  const value = (r, c) => weights.data[r * T + c];
  const looks = (r, c) => `“${visible(outputs.labels[r])}” looks at ${item(axis, c)}`;
  const read = (r, c) => ({ where: looks(r, c), value: shown(value(r, c)), axis, t: c, step: r + 1 });
  const plane = new Plane(`${name}: outputs by ${axis}`, part.words.id, read);
  const most = largest(weights.data);
  const scale = new Scale(0, most > 0.5 ? 1 : most);
  const line = clamp(Math.floor(420 / L), 4, 22);
  figures.push(() => timeMap(plane, axis, L, line, value, scale, "gate", "weight", outputs.labels, chosen.step - 1));
  if (axes[axis].kind === "patches") part.append(looking(name, axes[axis], weights));
  part.append(figure(`${name}, outputs by ${axis}`, plane.frame, plane.foot));
  return part;
}

// The picture as the chosen word saw it: where the model looked it is clear. For the whole loss, the mean over all words.
function looking(name, axis, weights) {
  const average = axis.labels.map((_, t) => mean(range(L).map((l) => weights.at(l)[t])));
  const now = () => (chosen.step ? weights.at(chosen.step - 1) : average);
  const read = (r, c) => {
    const t = r * axis.grid[1] + c;
    return { where: `${item(axis.name, t)} · weight`, value: shown(now()[t]), axis: axis.name, t };
  };
  const caption = el("figcaption", { id: `looking-${name}` });
  const plane = new Plane(`${name} over the picture`, caption.id, read);
  figures.push(() => {
    caption.textContent = chosen.step ? `Where the model looked for ${stepName()}` : "Where the model looked, mean over all words";
    shadedPatches(plane, axis, now(), new Scale(0, largest(now())));
  });
  return figure(`${name} over the picture`, el("div", { class: "pictures" }, plainPicture(axis), plane.frame), caption, plane.foot);
}
