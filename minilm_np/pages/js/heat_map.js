// An array as coloured cells on a canvas, with labels, a scale, and a cursor.

import { array, isNamed, labelsOf } from "./arrays.js";
import { colours, gradient, level } from "./colours.js";
import { clamp, el, isolated, shortened, shown } from "./dom.js";
import { choicesIn, onChoose, onSelect, resolved, select, selected } from "./state.js";
import { cursor, frame } from "./table.js";
import { onTheme, property } from "./theme.js";

const LABEL = 12; // pixels between labels
const MANY = 2000; // cells
const TALLEST = 520; // pixels of all rows, if a row may be thinner than a label

// The absolute value at the end of the scale: the largest, or the 99.8th percentile of a sample if that is much smaller,
// so that single huge values leave the rest visible.
function scaleEnd(numbers) {
  let largest = 0;
  for (const number of numbers) largest = Math.max(largest, Math.abs(number) || 0);
  if (numbers.length <= MANY) return largest;
  const stride = Math.ceil(numbers.length / (5 * MANY));
  const sample = numbers.filter((_, i) => i % stride === 0).map(Math.abs).sort();
  const most = sample[Math.floor(0.998 * (sample.length - 1))];
  return largest > 1.5 * most && most > 0 ? most : largest;
}

export async function heatMap(root, options) {
  const { rows, columns, scale } = options;
  const parts = frame(root, options, () => ({
    rows: rowLabels, columns: columnLabels, corner: options.labels[0] ?? "", cell: (r, c) => shown(value(r, c), data.exact),
  }));
  const canvas = el("canvas", { tabindex: "0", role: "application", "aria-roledescription": "heat map" });
  const low = el("span"), high = el("span"), bar = el("span", { class: "gradient" });
  const legend = el("div", { class: "legend" }, low, bar, high);
  const which = el("select", {});
  const chooser = el("label", { hidden: "" }, "Head ", which);
  parts.body.append(chooser, canvas, legend);

  let data, R, C, head = options.index ?? 0, limit = 1, rowLabels = [], columnLabels = [], at = null, image, layout;
  const step = () => data.steps[head] ?? data.step;
  const value = (r, c) => data.stored[(head * R + r) * C + c] * step();

  async function load() {
    const name = resolved(options.array);
    const found = await array(name);
    if (name !== resolved(options.array)) return; // another array was chosen while this one was decompressed
    data = found;
    [R, C] = data.shape.slice(-2);
    const heads = data.shape.length === 3 && options.index === undefined ? data.shape[0] : 1;
    chooser.hidden = heads === 1;
    if (which.length !== heads) which.replaceChildren(...Array.from({ length: heads }, (_, h) => el("option", { value: h }, String(h))));
    rowLabels = labelsOf(rows, R);
    columnLabels = labelsOf(columns, C);
    parts.title(resolved(options.title));
    canvas.setAttribute("aria-label", `${resolved(options.title)}, ${R} rows, ${C} columns. Arrow keys read cells; Enter selects the row.`);
    paint();
    parts.retable();
  }

  // Colours of all cells, one pixel each; scaled when drawn.
  function paint() {
    if (!data) return;
    limit = scaleEnd(data.stored.subarray(head * R * C, (head + 1) * R * C)) * step() || 1;
    const table = colours(scale);
    const pixels = new ImageData(C, R);
    for (let i = 0, n = R * C, start = head * n; i < n; i++) {
      const colour = level(data.stored[start + i] * step(), limit, scale) * 3;
      pixels.data[i * 4] = table[colour];
      pixels.data[i * 4 + 1] = table[colour + 1];
      pixels.data[i * 4 + 2] = table[colour + 2];
      pixels.data[i * 4 + 3] = 255;
    }
    image = new OffscreenCanvas(C, R);
    image.getContext("2d").putImageData(pixels, 0, 0);
    bar.style.background = gradient(scale);
    low.textContent = scale === "diverging" ? shown(-limit, false) : "0";
    high.textContent = shown(limit, false);
    legend.classList.toggle("centred", scale === "diverging");
    let beyond = 0;
    for (let i = 0, n = R * C, start = head * n; i < n; i++) beyond += Math.abs(data.stored[start + i]) * step() > limit * 1.000001;
    const colour = data.exact && beyond ? `${beyond} larger values have the colour of the end of the scale.` : "";
    parts.note(options.note, data.note, colour);
    draw();
  }

  function measure(context) {
    const width = parts.body.clientWidth;
    const named = isNamed(columns);
    context.font = `600 12px ${property("--sans")}`; // as wide as a selected label
    const widest = (labels) => Math.max(...labels.slice(0, 300).map((text) => context.measureText(shortened(text, 14)).width));
    const left = isNamed(rows) ? Math.ceil(widest(rowLabels)) + 10 : 4;
    const top = named ? Math.ceil(widest(columnLabels)) + 10 : 20;
    const square = named && isNamed(rows) && R > 1;
    let cell = (width - left - 2) / C;
    if (named) cell = Math.min(cell, 44);
    let height = clamp(TALLEST / R, 2, 18);
    if (square) height = cell = Math.min(cell, Math.max(2, 640 / R));
    return { left, top, cell, height, width: Math.ceil(left + cell * C + 2), total: Math.ceil(top + height * R + 2) };
  }

  function draw() {
    if (!data || !parts.body.clientWidth) return;
    const context = canvas.getContext("2d");
    layout = measure(context);
    const { left, top, cell, height, width, total } = layout;
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = total * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${total}px`;
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = cell * ratio < 1;
    context.drawImage(image, left, top, cell * C, height * R);
    context.font = `12px ${property("--sans")}`;
    context.textBaseline = "middle";
    const chosenRow = selected(rows), chosenColumn = selected(columns);
    const important = (index, chosen, under) => index === chosen || index === under;
    const every = Math.ceil(LABEL / height);
    if (isNamed(rows)) {
      context.textAlign = "right";
      rowLabels.forEach((text, r) => {
        if (r % every && !important(r, chosenRow, at?.[0])) return;
        if (every > 1 && nearImportant(r, chosenRow, at?.[0], every)) return;
        label(context, text, important(r, chosenRow, at?.[0]), left - 6, top + (r + 0.5) * height, 0);
      });
    }
    const wide = Math.ceil(LABEL / cell);
    context.textAlign = "left";
    if (isNamed(columns)) {
      columnLabels.forEach((text, c) => {
        if (c % wide && !important(c, chosenColumn, at?.[1])) return;
        if (wide > 1 && nearImportant(c, chosenColumn, at?.[1], wide)) return;
        label(context, text, important(c, chosenColumn, at?.[1]), left + (c + 0.5) * cell, top - 6, -Math.PI / 2);
      });
    } else {
      context.fillStyle = property("--quiet");
      const gap = C * cell < 300 ? Math.ceil(C / 3 / 64) * 64 : Math.ceil(C / 6 / 64) * 64;
      for (let c = 0; c < C; c += gap) context.fillText(String(c), left + c * cell, top - 9);
    }
    context.strokeStyle = property("--accent");
    context.lineWidth = 2;
    if (chosenRow !== null && chosenRow < R) context.strokeRect(left, top + chosenRow * height, cell * C, Math.max(2, height));
    if (columns !== rows && chosenColumn !== null && chosenColumn < C) context.strokeRect(left + chosenColumn * cell, top, Math.max(2, cell), height * R);
    if (at) {
      context.strokeStyle = property("--ink");
      context.strokeRect(left + at[1] * cell - 1, top + at[0] * height - 1, Math.max(3, cell) + 2, Math.max(3, height) + 2);
    }
  }

  // Thin rows: the neighbours of a marked label make room for it.
  const nearImportant = (index, ...rest) => {
    const every = rest.pop();
    return rest.some((marked) => marked !== null && marked !== undefined && index !== marked && Math.abs(index - marked) < every);
  };

  function label(context, text, bold, x, y, angle) {
    context.save();
    context.translate(x, y);
    context.rotate(angle);
    context.fillStyle = property(bold ? "--ink" : "--soft");
    context.font = `${bold ? "600 " : ""}12px ${property("--sans")}`;
    context.fillText(shortened(text, 14), 0, 0);
    context.restore();
  }

  const cell = (event) => {
    const box = canvas.getBoundingClientRect();
    const r = Math.floor((event.clientY - box.top - layout.top) / layout.height);
    const c = Math.floor((event.clientX - box.left - layout.left) / layout.cell);
    return r < 0 || r >= R || c >= C ? null : [r, clamp(c, 0, C - 1)];
  };
  const [rowName = "row", columnName = "column", valueName = "value"] = options.labels;
  cursor(canvas, {
    size: () => [R, C],
    at: cell,
    show: (place) => {
      at = place;
      if (place) {
        const [row, column] = [named(rows, rowLabels, place[0]), named(columns, columnLabels, place[1])];
        parts.read(`${rowName} `, ...row, `, ${columnName} `, ...column, `: ${valueName} ${shown(value(...place), data.exact)}`);
      } else parts.read();
      draw();
    },
    pick: (place) => place && (isNamed(rows) ? select(rows, place[0]) : isNamed(columns) && select(columns, place[1])),
    clear: () => {
      if (selected(rows) !== null) select(rows, null);
    },
  });
  const named = (axis, labels, index) => (isNamed(axis) ? ["\u201c", isolated(labels[index]), `\u201d (${index})`] : [String(index)]);

  which.addEventListener("change", () => {
    head = Number(which.value);
    paint();
    parts.retable();
  });
  for (const axis of new Set([rows, columns])) onSelect(axis, draw);
  for (const name of new Set(choicesIn(options.array + options.title))) onChoose(name, load);
  onTheme(paint);
  new ResizeObserver(draw).observe(parts.body);
  await load();

  // Show another array of the same axes.
  return (next) => {
    Object.assign(options, next);
    head = options.index ?? 0;
    return load();
  };
}
