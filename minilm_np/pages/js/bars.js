// Numbers as bars: a list of rows with labels for a named axis, else one thin bar per number.

import { array, hasArray, isNamed, labelsOf } from "./arrays.js";
import { clamp, el, isolated, shown, svg } from "./dom.js";
import { onSelect, select, selected } from "./state.js";
import { cursor, frame } from "./table.js";

export async function bars(root, options) {
  const data = await array(options.array);
  const N = data.shape[0];
  const labels = labelsOf(options.axis, N);
  const value = (i) => data.stored[i] * data.step;
  const parts = frame(root, options, () => ({ rows: labels, columns: [options.y], corner: options.axis, cell: (r) => shown(value(r), data.exact) }));
  parts.note(options.note, data.note);
  let limit = 0;
  for (let i = 0; i < N; i++) limit = Math.max(limit, Math.abs(value(i)) || 0);
  limit ||= 1;
  if (isNamed(options.axis)) list(parts, options, labels, value, limit, data.exact);
  else await thin(parts, options, N, value, limit, data.exact);
}

// One button per number: its label, the bar, the number. Bars start at zero, which moves right if some are negative.
function list(parts, options, labels, value, limit, exact) {
  const negative = labels.some((_, i) => value(i) < 0);
  const buttons = labels.map((text, i) => {
    const fill = el("span", { class: value(i) < 0 ? "fill negative" : "fill" });
    const share = (Math.abs(value(i)) / limit) * (negative ? 50 : 100);
    fill.style.width = `${share}%`;
    fill.style.marginLeft = negative ? `${value(i) < 0 ? 50 - share : 50}%` : "0";
    return el(
      "button",
      { type: "button", class: "row", "aria-pressed": "false", click: () => select(options.axis, i) },
      el("bdi", { class: "name", dir: "ltr" }, text), el("span", { class: negative ? "track centred" : "track" }, fill), el("span", { class: "number" }, shown(value(i), exact)),
    );
  });
  parts.body.append(el("div", { class: "bar-list", role: "group", "aria-label": options.title }, ...buttons));
  const mark = () => buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === selected(options.axis))));
  onSelect(options.axis, mark);
  mark();
}

async function thin(parts, options, N, value, limit, exact) {
  const over = options.overlay && hasArray(options.overlay) ? await array(options.overlay) : null;
  const drawing = svg("svg", { tabindex: "0", role: "application", "aria-roledescription": "bar chart", "aria-label": `${options.title}, ${N} bars. Left and right arrow keys read values.` });
  parts.body.append(drawing);
  let at = null, width = 0;
  const height = 220, left = 58, top = 14, bottom = 200;
  const middle = (top + bottom) / 2;
  const y = (v) => middle - (v / limit) * (middle - top);
  const x = (i) => left + (i / N) * (width - left - 4);

  function draw() {
    width = parts.body.clientWidth;
    if (!width) return;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    const nodes = [];
    for (const tick of [-limit, 0, limit]) {
      nodes.push(svg("line", { x1: left, x2: width, y1: y(tick), y2: y(tick), class: tick ? "grid" : "zero" }));
      nodes.push(svg("text", { x: left - 8, y: y(tick) + 4, class: "tick end" }, tick ? shown(tick, false) : "0"));
    }
    const path = (get) => Array.from({ length: N }, (_, i) => `M${x(i + 0.5).toFixed(2)} ${middle}V${y(get(i)).toFixed(2)}`).join("");
    const thick = Math.max(0.6, ((width - left) / N) * 0.7);
    const add = (kind, get) => nodes.push(svg("path", { d: path(get), class: kind, "stroke-width": thick }));
    add("bar positive", (i) => Math.max(0, value(i) || 0));
    add("bar negative", (i) => Math.min(0, value(i) || 0));
    const token = over ? selected("tokens") : null;
    if (token !== null) add("bar overlay", (i) => over.stored[token * N + i] * over.step);
    if (at !== null) nodes.push(svg("rect", { x: x(at) - 1.5, y: top, width: (width - left) / N + 3, height: bottom - top, class: "cursor" }));
    const every = N * 20 > width - left ? Math.ceil((N * 45) / (width - left) / 16) * 16 : 1;
    for (let i = 0; i < N; i += every) nodes.push(svg("text", { x: x(i + 0.5), y: bottom + 16, class: "tick middle" }, String(i)));
    drawing.replaceChildren(...nodes);
  }

  cursor(drawing, {
    size: () => [1, N],
    at: (event) => [0, clamp(Math.floor(((event.clientX - drawing.getBoundingClientRect().left - left) / (width - left - 4)) * N), 0, N - 1)],
    show: (place) => {
      at = place ? place[1] : null;
      const token = over && place ? selected("tokens") : null;
      const share =
        token !== null
          ? ["; of that, \u201c", isolated(labelsOf("tokens", 0)[token]), `\u201d contributes ${shown(over.stored[token * N + at] * over.step, over.exact)}`]
          : [];
      parts.read(...(place ? [`${options.axis} ${at}: ${shown(value(at), exact)}`, ...share] : []));
      draw();
    },
    pick: () => {},
    clear: () => selected("tokens") !== null && select("tokens", null),
  });
  if (over) onSelect("tokens", draw);
  new ResizeObserver(draw).observe(parts.body);
  draw();
}
