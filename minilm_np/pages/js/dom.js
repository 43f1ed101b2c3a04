// Elements and numbers. Text only ever goes through textContent and setAttribute, so it is never markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A token in a sentence: isolated, because a right-to-left one would reorder the words and numbers around it.
export const isolated = (text) => el("bdi", { dir: "ltr" }, text);

// A number for people: six significant digits if it is exact, three if it was rounded for display.
export function shown(value, exact = true) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  const digits = exact ? 6 : 3;
  const text = size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential(digits - 1) : value.toPrecision(digits);
  return text.replace("-", "\u2212").replace("e+", "e");
}

// A string cut to a number of characters, with an ellipsis.
export function shortened(text, most) {
  const characters = [...text];
  return characters.length > most ? characters.slice(0, most - 1).join("") + "\u2026" : text;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A round step, so that about `count` of them cover `range`: 1, 2 or 5 times a power of ten.
export function roundStep(range, count) {
  const raw = range / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}
