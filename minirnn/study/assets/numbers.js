"use strict";
// Arrays as Python wrote them, numbers as they are shown, and the colours that stand for numbers.

// An array of the data: shape, and the numbers at the indices along its first axes, as a view.
class Numbers {
  constructor({ shape, float32, uint8 }) {
    this.shape = shape;
    const bytes = Uint8Array.from(atob(float32 ?? uint8), (letter) => letter.charCodeAt(0));
    this.data = uint8 === undefined ? new Float32Array(bytes.buffer) : bytes;
  }
  at(...indices) {
    const size = this.shape.slice(indices.length).reduce((a, b) => a * b, 1);
    const start = indices.reduce((row, index, axis) => row * this.shape[axis] + index, 0) * size;
    return this.data.subarray(start, start + size);
  }
}

// The same data with every array decoded when it is first asked for.
function decoded(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(decoded);
  const result = {};
  for (const [name, item] of Object.entries(value)) {
    let numbers;
    const isArray = item !== null && typeof item === "object" && ("float32" in item || "uint8" in item);
    const get = () => (numbers ??= isArray ? new Numbers(item) : decoded(item));
    Object.defineProperty(result, name, { get, enumerable: true });
  }
  return result;
}

// Four significant digits, which a float32 has and a little more.
function shown(x) {
  if (x === null || Number.isNaN(x)) return "none";
  if (x === 0) return "0";
  const text = Number.isFinite(x) ? Number(x).toPrecision(4) : x > 0 ? "∞" : "-∞";
  return text.replaceAll("-", "−").replace("e+", "e");
}

// A token as it can be seen, where it is empty, or white space, or a control character.
function visible(token) {
  if (token === "") return "∅";
  return token.replace(/^\s+$/u, (space) => "␣".repeat(space.length)).replace(/[\u0000-\u001f]/gu, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

const finite = (numbers) => Array.from(numbers).filter(Number.isFinite);
const largest = (numbers) => finite(numbers).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
const mean = (numbers) => numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
const norm = (numbers) => Math.sqrt(numbers.reduce((sum, x) => sum + x * x, 0));
const variance = (numbers) => mean(numbers.map((x) => (x - mean(numbers)) ** 2));
const peak = (numbers) => numbers.reduce((best, x, t) => (Math.abs(x) > Math.abs(numbers[best]) ? t : best), 0);

// How to sort the units of a heat map: by a key of each unit's row through time, or of its gradient's.
const ORDERS = {
  number: { label: "unit number" },
  mean: { label: "mean, high to low", key: (row) => -mean(row) },
  activity: { label: "variance over time, high to low", key: (row) => -variance(row) },
  gradient: { label: "gradient norm, high to low", key: (row, gradient) => -norm(gradient) },
  peak: { label: "time of the largest value", key: peak },
};

// The units in their order. row(unit), gradient(unit): numbers through time.
function ordered(units, order, row, gradient) {
  const { key } = ORDERS[order];
  const numbers = Array.from({ length: units }, (_, unit) => unit);
  if (!key) return numbers;
  const keys = numbers.map((unit) => key(finite(row(unit)), order === "gradient" ? finite(gradient(unit)) : null));
  return numbers.sort((a, b) => keys[a] - keys[b] || a - b);
}

// From a number to its place on a scale from 0 to 1 and back. `low` is 0 for a scale of one sign, -high for one of both.
const DECADES = 4;
class Scale {
  constructor(low, high, logarithmic = false) {
    Object.assign(this, { low, high: high || 1, logarithmic });
    this.signed = low < 0;
  }
  share(x) {
    const part = x / this.high;
    if (!this.logarithmic) return Math.min(1, Math.max(-1, part));
    return Math.sign(part) * Math.max(0, Math.min(1, 1 + Math.log10(Math.abs(part)) / DECADES));
  }
  place(x) {
    return this.signed ? (1 + this.share(x)) / 2 : Math.max(0, this.share(x));
  }
  // Numbers for a legend, with their places.
  ticks() {
    const shares = this.signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1];
    return shares.map((share) => {
      const size = this.logarithmic && share ? 10 ** (DECADES * (Math.abs(share) - 1)) : Math.abs(share);
      return { value: Math.sign(share) * size * this.high, place: this.signed ? (1 + share) / 2 : share };
    });
  }
}

// 256 colours between those of a CSS gradient, as the little-endian RGBA of a canvas.
function palette(gradient) {
  const stops = gradient.match(/rgba?\([^)]*\)/g);
  const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 1 });
  const context = canvas.getContext("2d");
  const fill = context.createLinearGradient(0, 0, 256, 0);
  stops.forEach((stop, k) => fill.addColorStop(k / (stops.length - 1), stop));
  context.fillStyle = fill;
  context.fillRect(0, 0, 256, 1);
  const colours = new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
  return (place) => (Number.isNaN(place) ? 0 : colours[Math.round(255 * place)]);
}
