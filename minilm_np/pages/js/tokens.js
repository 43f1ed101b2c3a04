// The tokens of a text as a row of buttons, above the text with the characters of each marked. Tokens are written from
// left to right in any script: otherwise the ## of a Hebrew piece would stand at its end.

import { values } from "./arrays.js";
import { el, isolated } from "./dom.js";
import { onSelect, select, selected } from "./state.js";

// options: axis; pieces, [[characters, token or null], ...] in the order of the text; cut, the characters left out.
export function tokens(root, options) {
  const labels = values.axes[options.axis];
  const chips = labels.map((text, index) =>
    el(
      "button",
      { type: "button", class: options.special.includes(index) ? "chip special" : "chip", "aria-pressed": "false", click: () => select(options.axis, index) },
      el("span", { class: "index" }, String(index)), el("bdi", { dir: "ltr" }, text), el("span", { class: "id" }, String(options.ids[index])),
    ),
  );
  const pieces = options.pieces.map(([characters, index]) => {
    if (index === null) return el("span", {}, characters);
    const piece = el("mark", { class: index % 2 ? "odd" : "even" }, characters);
    piece.addEventListener("click", () => select(options.axis, index));
    return piece;
  });
  const text = el("p", { class: "source-text", dir: "auto" }, ...pieces);
  if (options.cut) text.append(el("del", { title: "truncated: the model does not read this" }, options.cut));
  root.replaceChildren(el("div", { class: "chips", role: "group", "aria-label": "Tokens" }, ...chips), text);

  onSelect(options.axis, () => {
    const chosen = selected(options.axis);
    chips.forEach((chip, index) => chip.setAttribute("aria-pressed", String(index === chosen)));
    options.pieces.forEach(([, index], at) => pieces[at].classList.toggle("chosen", index !== null && index === chosen));
  });
}

// A small bar at the bottom of the window that names the selected token, with buttons to move on and to clear.
export function selectionBar(root, options) {
  const labels = values.axes[options.axis];
  const name = el("strong");
  const move = (by) => {
    const next = (selected(options.axis) + by + labels.length) % labels.length;
    if (next !== selected(options.axis)) select(options.axis, next);
  };
  root.replaceChildren(
    el("span", {}, "Selected token: ", name),
    el("button", { type: "button", click: () => move(-1) }, "Previous"),
    el("button", { type: "button", click: () => move(1) }, "Next"),
    el("button", { type: "button", click: () => select(options.axis, null) }, "Clear"),
  );
  const show = () => {
    const chosen = selected(options.axis);
    root.hidden = chosen === null;
    if (chosen !== null) name.replaceChildren(isolated(labels[chosen]), ` (${chosen})`);
  };
  onSelect(options.axis, show);
  show();
}
