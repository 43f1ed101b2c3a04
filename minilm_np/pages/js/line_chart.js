// Lines over a few labelled places, as SVG: one line per row of an array.

import { array, isNamed, labelsOf } from "./arrays.js";
import { el, isolated, roundStep, shortened, shown, svg } from "./dom.js";
import { onSelect, select, selected } from "./state.js";
import { cursor, frame } from "./table.js";

const FEW = 6; // lines that get separate colours, dashes and marks
const DENSE = 40; // more lines are fainter
const MARKS = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-4 -4h8v8h-8z", "M0 -5l5 9h-10z", "M-5 0l5 -5l5 5l-5 5z", "M0 5l5 -9h-10z", "M-5 -1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z"];

export async function lineChart(root, options) {
  const data = await array(options.array);
  const [S, X] = data.shape;
  const labels = labelsOf(options.series, S);
  const value = (s, x) => data.stored[s * X + x] * data.step;
  const parts = frame(root, options, () => ({ rows: labels, columns: options.x, corner: options.y, cell: (r, c) => shown(value(r, c), data.exact) }));
  parts.note(options.note, data.note);
  const drawing = svg("svg", { tabindex: "0", role: "application", "aria-roledescription": "line chart", "aria-label": `${options.title}: ${options.y}, ${S} lines, ${X} places. Arrow keys read values; Enter selects the line.` });
  parts.body.append(drawing);

  const usable = (v) => Number.isFinite(v) && (!options.log || v > 0);
  const scaled = (v) => (options.log ? Math.log10(v) : v);
  const all = Array.from({ length: S * X }, (_, i) => data.stored[i] * data.step).filter(usable).map(scaled);
  let low = all.length ? Math.min(...all.slice(0, 1e5)) : 0, high = all.length ? Math.max(...all.slice(0, 1e5)) : 1;
  if (options.zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const step = options.log ? Math.max(1, Math.round((high - low) / 6)) : roundStep(high - low || 1, 5);
  low = Math.floor(low / step + 1e-6) * step; // a rounding error adds no tick
  high = Math.max(low + step, Math.ceil(high / step - 1e-6) * step);

  const mean = Array.from({ length: X }, (_, x) => {
    const column = Array.from({ length: S }, (_, s) => value(s, x)).filter(usable);
    return column.reduce((a, b) => a + b, 0) / column.length;
  });
  let at = null, geometry;

  function draw() {
    const width = parts.body.clientWidth;
    if (!width) return;
    const right = S <= FEW || options.summary ? Math.min(130, width * 0.25) : 16;
    const height = width < 500 ? 260 : 320;
    const turned = (width - 58 - right) / X < 62;
    const bottom = height - (turned ? 84 : 34);
    geometry = { left: 58, right: width - right, top: 28, bottom };
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    const px = (x) => geometry.left + (X === 1 ? 0.5 : x / (X - 1)) * (geometry.right - geometry.left - 12) + 6;
    const py = (v) => bottom - ((scaled(v) - low) / (high - low)) * (bottom - geometry.top);
    geometry.px = px;
    geometry.py = py;
    const nodes = [svg("text", { x: 2, y: 12, class: "axis-title" }, options.y)];
    for (let tick = low; tick <= high + step / 2; tick += step) {
      const y = bottom - ((tick - low) / (high - low)) * (bottom - geometry.top);
      nodes.push(svg("line", { x1: geometry.left, x2: geometry.right, y1: y, y2: y, class: Math.abs(tick) < step / 1e6 && !options.log ? "zero" : "grid" }));
      nodes.push(svg("text", { x: geometry.left - 8, y: y + 4, class: "tick end" }, options.log ? `1e${Math.round(tick)}` : String(Number(tick.toPrecision(6))).replace("-", "\u2212")));
    }
    options.x.forEach((text, x) => {
      const place = turned ? { transform: `translate(${px(x) + 4} ${bottom + 12}) rotate(-45)`, class: "tick end" } : { x: px(x), y: bottom + 20, class: "tick middle" };
      if (X <= 40 || x % Math.ceil(X / 20) === 0) nodes.push(svg("text", place, shortened(text, 16)));
    });
    const path = (numbers) => {
      let pen = "M";
      return numbers.map((v, x) => (usable(v) ? `${pen}${px(x).toFixed(1)} ${py(v).toFixed(1)}${(pen = "L") && ""}` : ((pen = "M"), ""))).join("");
    };
    const row = (s) => Array.from({ length: X }, (_, x) => value(s, x));
    const chosen = selected(options.series);
    const marked = new Set([chosen, at?.[0]].filter((s) => s !== null && s !== undefined && s < S));
    for (let s = 0; s < S; s++) {
      if (S > FEW && marked.has(s)) continue;
      nodes.push(svg("path", { d: path(row(s)), class: S <= FEW ? `line few series-${s}${marked.has(s) ? " marked" : ""}` : S > DENSE ? "line many dense" : "line many" }));
      if (S <= FEW) row(s).forEach((v, x) => usable(v) && nodes.push(svg("path", { d: MARKS[s], transform: `translate(${px(x)} ${py(v)})`, class: `mark series-${s}` })));
    }
    const ends = [];
    const end = (text, numbers, kind) => {
      const last = numbers.findLastIndex(usable);
      if (last >= 0) ends.push({ text, y: py(numbers[last]) + 4, kind });
    };
    if (options.summary && S > 1) {
      nodes.push(svg("path", { d: path(mean), class: "line summary" }));
      end("mean of all", mean, "label");
    }
    if (S > FEW) {
      for (const s of marked) {
        nodes.push(svg("path", { d: path(row(s)), class: "line marked" }));
        row(s).forEach((v, x) => usable(v) && nodes.push(svg("circle", { cx: px(x), cy: py(v), r: 3.5, class: "mark accent" })));
        end(labels[s], row(s), "label accent");
      }
    } else labels.forEach((text, s) => end(text, row(s), `label series-${s}`));
    // labels at the ends of lines, moved apart where they would overlap
    ends.sort((a, b) => a.y - b.y).forEach((one, i) => (one.y = i ? Math.max(one.y, ends[i - 1].y + 15) : one.y));
    const over = ends.length ? Math.max(0, ends.at(-1).y - bottom - 4) : 0;
    if (right > 16) for (const one of ends) nodes.push(svg("text", { x: geometry.right + 4, y: one.y - over, class: one.kind }, shortened(one.text, Math.floor(right / 7.5))));
    if (at && usable(value(...at))) nodes.push(svg("circle", { cx: px(at[1]), cy: py(value(...at)), r: 6, class: "cursor" }));
    drawing.replaceChildren(...nodes);
  }

  cursor(drawing, {
    size: () => [S, X],
    at: (event) => {
      const box = drawing.getBoundingClientRect();
      const [mx, my] = [event.clientX - box.left, event.clientY - box.top];
      if (!geometry) return null;
      let best = [0, 0];
      for (let x = 1; x < X; x++) if (Math.abs(geometry.px(x) - mx) < Math.abs(geometry.px(best[1]) - mx)) best = [0, x];
      let nearest = Infinity;
      for (let s = 0; s < S; s++) {
        const v = value(s, best[1]);
        const far = usable(v) ? Math.abs(geometry.py(v) - my) : Infinity;
        if (far < nearest) [nearest, best] = [far, [s, best[1]]];
      }
      return best;
    },
    show: (place) => {
      at = place;
      if (place) {
        const name = isNamed(options.series) ? ["\u201c", isolated(labels[place[0]]), "\u201d"] : [labels[place[0]]];
        parts.read(...name, `, ${options.x[place[1]]}: ${shown(value(...place), data.exact)}`);
      } else parts.read();
      draw();
    },
    pick: (place) => place && select(options.series, place[0]),
    clear: () => selected(options.series) !== null && select(options.series, null),
  });
  onSelect(options.series, draw);
  new ResizeObserver(draw).observe(parts.body);
  draw();
}
