// The data of the page: JSON values, and arrays that are decompressed when a view first needs them.
// `arrays.py` writes them.

const WIDTHS = { float32: 4, float64: 8, uint16: 2, int8: 1 };
const VIEWS = { float32: Float32Array, float64: Float64Array, uint16: Uint16Array, int8: Int8Array };
const decoded = new Map();

export const values = JSON.parse(document.getElementById("values").textContent);

// Returns a promise of {shape, stored, step, steps, exact, note}. The value of cell i is stored[i] * step; in an array of
// three dimensions, steps[index of the first] replaces step if there are several.
export function array(name) {
  if (!decoded.has(name)) decoded.set(name, decode(name));
  return decoded.get(name);
}

export const hasArray = (name) => name in values.arrays;

async function decode(name) {
  const { shape, kind, steps, clipped } = values.arrays[name];
  const element = document.querySelector(`script[data-array="${CSS.escape(name)}"]`);
  const stream = new Blob([bytesOf(element.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const stored = new VIEWS[kind](joined(planes, WIDTHS[kind]).buffer);
  return { shape, stored, steps, step: steps[0], exact: kind.startsWith("float"), note: noteOf(kind, steps, clipped) };
}

// Base64 as bytes. Not every browser has `fromBase64` yet.
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
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

function noteOf(kind, steps, clipped) {
  if (kind === "uint16") return "Values are rounded to multiples of 1/65535.";
  if (kind !== "int8") return "";
  const beyond = clipped ? ` ${clipped} larger values have the colour of the end of the scale.` : "";
  return `Values are rounded for display, to ${steps.length > 1 ? "49 levels per head" : `multiples of ${steps[0].toPrecision(3)}`}.${beyond}`;
}

// The labels of an axis: those of the page, or the axis's name with a number.
export function labelsOf(axis, count) {
  return values.axes?.[axis] ?? Array.from({ length: count }, (_, index) => `${axis} ${index}`);
}

export const isNamed = (axis) => values.axes?.[axis] !== undefined;
