// The data of the page: JSON values, and arrays that are decompressed when a view first needs them.
// `arrays.py` writes them.

const WIDTHS = { float32: 4, float64: 8, uint16: 2, int8: 1 };
const VIEWS = { float32: Float32Array, float64: Float64Array, uint16: Uint16Array, int8: Int8Array };
const decoded = new Map();

export const values = JSON.parse(document.getElementById("values").textContent);

// Returns a promise of {shape, stored, step, exact, note}; the value of cell i is stored[i] * step.
export function array(name) {
  if (!decoded.has(name)) decoded.set(name, decode(name));
  return decoded.get(name);
}

export const hasArray = (name) => name in values.arrays;

async function decode(name) {
  const { shape, kind, step, clipped } = values.arrays[name];
  const element = document.querySelector(`script[data-array="${CSS.escape(name)}"]`);
  const text = atob(element.textContent);
  const compressed = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const stored = new VIEWS[kind](joined(planes, WIDTHS[kind]).buffer);
  return { shape, stored, step, exact: kind.startsWith("float"), note: noteOf(kind, step, clipped) };
}

// Bytes from their planes: all first bytes, then all second bytes, and so on.
function joined(planes, width) {
  const count = planes.length / width;
  const bytes = new Uint8Array(planes.length);
  for (let byte = 0; byte < width; byte++) {
    for (let i = 0; i < count; i++) bytes[i * width + byte] = planes[byte * count + i];
  }
  return bytes;
}

function noteOf(kind, step, clipped) {
  if (kind === "uint16") return "Values are rounded to multiples of 1/65535.";
  if (kind !== "int8") return "";
  const beyond = clipped ? ` ${clipped} larger values have the colour of the end of the scale.` : "";
  return `Values are rounded for display, to multiples of ${step.toPrecision(3)}.${beyond}`;
}

// The labels of an axis: those of the page, or the axis's name with a number.
export function labelsOf(axis, count) {
  return values.axes?.[axis] ?? Array.from({ length: count }, (_, index) => `${axis} ${index}`);
}

export const isNamed = (axis) => values.axes?.[axis] !== undefined;
