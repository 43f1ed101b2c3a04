// All layers and heads as small pictures; the chosen one is opened large below them.

import { array, labelsOf } from "./arrays.js";
import { colours, level } from "./colours.js";
import { el, isolated, shown } from "./dom.js";
import { heatMap } from "./heat_map.js";
import { onSelect, selected } from "./state.js";
import { onTheme, property } from "./theme.js";

const TILE = 48; // pixels of a small picture, at most

// options: arrays, one name per layer, each (heads, tokens, tokens); axis; start, [layer, head] opened first.
export async function attention(root, options) {
  const first = await array(options.arrays[0]);
  const [H, T] = first.shape;
  const L = options.arrays.length;
  let [layer, head] = options.start;
  const size = Math.min(TILE, T);
  const tiles = [];
  const grid = el("div", { class: "multiples", role: "radiogroup", "aria-label": "Attention head to open: arrow keys choose the layer and the head" });
  grid.style.setProperty("--heads", H);
  grid.append(el("span", { class: "corner", "aria-hidden": "true" }, "head"));
  for (let h = 0; h < H; h++) grid.append(el("span", { class: "column", "aria-hidden": "true" }, String(h)));
  for (let l = 0; l < L; l++) {
    grid.append(el("span", { class: "row", "aria-hidden": "true" }, `layer ${l}`));
    for (let h = 0; h < H; h++) {
      const canvas = el("canvas", { width: size, height: size });
      const tile = el("div", { class: "tile", role: "radio", "aria-label": `layer ${l}, head ${h}`, click: () => open(l, h) }, canvas);
      tiles.push({ tile, canvas });
      grid.append(tile);
    }
  }
  const large = el("div", { class: "view heat-map" });
  const strongest = el("p", { class: "strongest", "aria-live": "polite" });
  root.replaceChildren(grid, strongest, large);

  grid.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    open((layer + moves[event.key][0] + L) % L, (head + moves[event.key][1] + H) % H);
    tiles[layer * H + head].tile.focus();
  });

  const title = () => `Layer ${layer}, head ${head}: who attends to whom`;
  const show = await heatMap(large, {
    array: options.arrays[layer], index: head, title: title(), rows: options.axis, columns: options.axis, scale: "sequential",
    note: "Rows attend to columns; each row adds up to 1.", labels: ["from", "to", "probability"],
  });

  function mark() {
    tiles.forEach(({ tile }, i) => {
      const on = i === layer * H + head;
      tile.setAttribute("aria-checked", String(on));
      tile.setAttribute("tabindex", on ? "0" : "-1");
    });
  }

  async function open(l, h) {
    [layer, head] = [l, h];
    mark();
    await show({ array: options.arrays[l], index: h, title: title() });
    await sentence();
  }

  // The five tokens that the selected token attends to most.
  async function sentence() {
    const token = selected(options.axis);
    if (token === null) {
      strongest.textContent = "Select a token to read where it looks.";
      return;
    }
    const opened = layer;
    const data = await array(options.arrays[opened]);
    if (opened !== layer || token !== selected(options.axis)) return; // another sentence replaces this one
    const row = Array.from({ length: T }, (_, to) => [data.stored[(head * T + token) * T + to] * data.step, to]);
    const names = labelsOf(options.axis, T);
    const most = row.sort((a, b) => b[0] - a[0]).slice(0, 5);
    strongest.replaceChildren(
      `In layer ${layer}, head ${head}, \u201c`, isolated(names[token]), `\u201d (${token}) attends most to: `,
      ...most.flatMap(([share, to], place) => [place ? "; " : "", isolated(names[to]), ` (${to}) ${shown(share, false)}`]), ".",
    );
  }

  // Each pixel of a small picture is the largest probability of the cells that it covers, brightened by a root.
  async function paint(l) {
    const data = await array(options.arrays[l]);
    const table = colours("sequential");
    for (let h = 0; h < H; h++) {
      const most = new Float32Array(size * size);
      for (let q = 0; q < T; q++) {
        const row = Math.floor((q * size) / T) * size;
        const start = (h * T + q) * T;
        for (let k = 0; k < T; k++) {
          const place = row + Math.floor((k * size) / T);
          const share = data.stored[start + k];
          if (share > most[place]) most[place] = share;
        }
      }
      const context = tiles[l * H + h].canvas.getContext("2d");
      const pixels = context.createImageData(size, size);
      for (let i = 0; i < most.length; i++) {
        const colour = level(Math.sqrt(most[i] * data.step), 1, "sequential") * 3;
        pixels.data.set([table[colour], table[colour + 1], table[colour + 2], 255], i * 4);
      }
      context.putImageData(pixels, 0, 0);
      const token = selected(options.axis);
      if (token !== null) {
        context.fillStyle = property("--accent");
        context.globalAlpha = 0.55;
        context.fillRect(0, Math.floor((token * size) / T), size, 1);
        context.globalAlpha = 1;
      }
    }
  }

  // One layer at a time, so that the page stays responsive while a long text is drawn.
  let round = 0;
  async function paintAll() {
    const mine = ++round;
    for (let l = 0; l < L && mine === round; l++) {
      await paint(l);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  onTheme(paintAll);
  onSelect(options.axis, () => {
    paintAll();
    sentence();
  });
  mark();
  sentence();
  paintAll();
}
