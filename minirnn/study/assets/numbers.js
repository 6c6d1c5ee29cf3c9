"use strict";
// Arrays as Python wrote them, numbers as they are shown, and the colours that stand for numbers.

// An array: its shape, and its numbers at the indices along its first axes.
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

// The same data, where every array is decoded when it is first asked for.
function decoded(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(decoded);
  if ("float32" in value || "uint8" in value) return new Numbers(value);
  const result = {};
  for (const [name, item] of Object.entries(value)) {
    let known;
    Object.defineProperty(result, name, { enumerable: true, get: () => (known === undefined ? (known = decoded(item)) : known) });
  }
  return result;
}

// Four significant digits, or as many as are asked for; a float32 has seven.
function shown(x, digits = 4) {
  if (x === null || Number.isNaN(x)) return "none";
  if (x === 0) return "0";
  const text = Math.abs(x) < 1e-3 ? x.toExponential(digits - 1) : x.toPrecision(digits);
  return text.replace("Infinity", "∞").replaceAll("-", "−").replace("e+", "e");
}

// Text in which control characters can be seen, and those that turn the direction of writing turn nothing.
function tame(text) {
  const seen = text.replace(/[\u0000-\u001f]/gu, (letter) => String.fromCharCode(0x2400 + letter.charCodeAt(0)));
  return seen.replace(/[\u202a-\u202e\u2066-\u2069]/gu, "⇄");
}
// A token as it can be seen where it is empty, or nothing but white space.
function visible(token) {
  return token.trim() ? tame(token) : "␣".repeat(token.length) || "∅";
}
const LONGEST = 14; // letters of a token where there is little room
function short(token) {
  const letters = Array.from(visible(token));
  return letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("")}…` : letters.join("");
}

const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const range = (n) => Array.from({ length: n }, (_, k) => k);
const finite = (numbers) => Array.from(numbers).filter(Number.isFinite);
const largest = (numbers) => finite(numbers).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
const mean = (numbers) => numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
const norm = (numbers) => Math.sqrt(numbers.reduce((sum, x) => sum + x * x, 0));
function variance(numbers) {
  const middle = mean(numbers);
  return mean(numbers.map((x) => (x - middle) ** 2));
}
const peak = (numbers) => numbers.reduce((best, x, t) => (Math.abs(x) > Math.abs(numbers[best]) ? t : best), 0);

// By what the rows of a heat map are sorted: a key of a unit's numbers through time, or of its gradient's.
const ORDERS = {
  number: { label: "unit number", key: () => 0 },
  mean: { label: "mean, high to low", key: (numbers) => -mean(numbers) },
  activity: { label: "variance over time, high to low", key: (numbers) => -variance(numbers) },
  gradient: { label: "norm of dh, high to low", key: (numbers, gradient) => -norm(gradient) },
  peak: { label: "time of the largest value", key: peak },
};
function ordered(units, order, numbers, gradient) {
  const keys = range(units).map((unit) => ORDERS[order].key(finite(numbers(unit)), order === "gradient" ? finite(gradient(unit)) : []));
  return range(units).sort((a, b) => keys[a] - keys[b] || a - b);
}

// From a number to its place on a scale, 0 to 1, and back. `low` is 0 for numbers of one sign and -high for those of both.
const DECADES = 4; // of a logarithmic scale; what is smaller is shown as 0
class Scale {
  constructor(low, high, logarithmic = false) {
    Object.assign(this, { signed: low < 0, high: high || 1, logarithmic });
  }
  share(x) {
    const part = x / this.high;
    if (!this.logarithmic) return clamp(part, -1, 1);
    return Math.sign(part) * clamp(1 + Math.log10(Math.abs(part)) / DECADES, 0, 1);
  }
  place(x) {
    return this.signed ? (1 + this.share(x)) / 2 : Math.max(0, this.share(x));
  }
  ticks() {
    return (this.signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1]).map((share) => {
      const size = this.logarithmic && share ? 10 ** (DECADES * (Math.abs(share) - 1)) : Math.abs(share);
      return { value: Math.sign(share) * size * this.high, place: this.signed ? (1 + share) / 2 : share };
    });
  }
}

// From a place on a scale to a colour of a CSS gradient, as a pixel of a canvas; none for NaN.
function palette(gradient) {
  const stops = gradient.match(/rgba?\([^)]*\)/g);
  const context = Object.assign(document.createElement("canvas"), { width: 256, height: 1 }).getContext("2d");
  const fill = context.createLinearGradient(0.5, 0, 255.5, 0);
  stops.forEach((stop, k) => fill.addColorStop(k / (stops.length - 1), stop));
  context.fillStyle = fill;
  context.fillRect(0, 0, 256, 1);
  const pixels = new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
  return (place) => (Number.isNaN(place) ? 0 : pixels[Math.round(255 * place)]);
}
