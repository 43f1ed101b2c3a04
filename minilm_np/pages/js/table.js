// The frame of every chart: its title, the chart, a line that reads out values, and a table of the same numbers.

import { clamp, el } from "./dom.js";

const COLUMNS = 16; // of a table at a time
let count = 0;

// Returns {body, read, note, title, retable}. `source()` returns {rows, columns, corner, cell(row, column)}.
export function frame(root, options, source) {
  const id = `chart-${++count}`;
  const body = el("div", { class: "chart" });
  const readout = el("output", { class: "readout", "aria-live": "polite" });
  const note = el("p", { class: "note" });
  const place = el("div", { class: "table", hidden: "" });
  const button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": `${id}-table` }, "Show as table");
  place.id = `${id}-table`;
  let first = 0;

  const retable = () => {
    if (!place.hidden) place.replaceChildren(...tableOf(source(), first, title.textContent, move));
  };
  const move = (by) => {
    first = clamp(first + by, 0, Math.max(0, source().columns.length - 1));
    retable();
    place.querySelector("button:not([disabled])")?.focus();
  };
  button.addEventListener("click", () => {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    button.textContent = place.hidden ? "Show as table" : "Hide the table";
    retable();
  });

  const title = el("figcaption", { id: `${id}-title` }, options.title);
  root.replaceChildren(
    el("figure", { "aria-labelledby": `${id}-title` }, title, body, el("div", { class: "below" }, readout, button), note, place),
  );
  return {
    body,
    retable,
    // long names may break after a dot
    title: (text) => title.replaceChildren(...text.split(/(?<=\.)/).flatMap((part) => [part, el("wbr")])),
    read: (...parts) => readout.replaceChildren(...parts),
    note: (...texts) => (note.textContent = texts.filter(Boolean).join(" ")),
  };
}

function tableOf({ rows, columns, corner = "", cell }, first, caption, move) {
  const last = Math.min(columns.length, first + COLUMNS);
  const parts = [];
  if (columns.length > COLUMNS) {
    parts.push(
      el(
        "p",
        { class: "pager" },
        el("button", { type: "button", click: () => move(-COLUMNS), ...(first ? {} : { disabled: "" }) }, "Previous columns"),
        ` Columns ${first + 1} to ${last} of ${columns.length} `,
        el("button", { type: "button", click: () => move(COLUMNS), ...(last < columns.length ? {} : { disabled: "" }) }, "Next columns"),
      ),
    );
  }
  const head = el("tr", {}, el("td", {}, corner));
  for (let c = first; c < last; c++) head.append(el("th", { scope: "col" }, el("bdi", {}, columns[c])));
  const body = el("tbody");
  rows.forEach((label, r) => {
    const row = el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, label)));
    for (let c = first; c < last; c++) row.append(el("td", { class: "number" }, cell(r, c)));
    body.append(row);
  });
  const table = el("table", {}, el("caption", {}, caption), el("thead", {}, head), body);
  parts.push(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${caption}` }, table));
  return parts;
}

// Arrow keys and the pointer move a cursor over a chart; `at(event)` gives the place of a pointer, [row, column].
export function cursor(target, { size, at, show, pick, clear }) {
  let place = null;
  const moveTo = (next) => {
    place = next;
    show(place);
  };
  target.addEventListener("pointermove", (event) => moveTo(at(event)));
  target.addEventListener("pointerleave", () => moveTo(null));
  target.addEventListener("click", (event) => pick(at(event)));
  target.addEventListener("blur", () => moveTo(null));
  target.addEventListener("keydown", (event) => {
    const [rows, columns] = size();
    const [r, c] = place ?? [0, 0];
    const page = Math.max(1, Math.round(columns / 10));
    const moves = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
      Home: [r, 0], End: [r, columns - 1], PageUp: [r, c - page], PageDown: [r, c + page],
    };
    if (event.key in moves) moveTo(place ? [clamp(moves[event.key][0], 0, rows - 1), clamp(moves[event.key][1], 0, columns - 1)] : [0, 0]);
    else if (event.key === "Enter" || event.key === " ") pick(place ?? [0, 0]);
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
  });
}
