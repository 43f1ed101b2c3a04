// Parts of the pipeline: a choice such as the layer, and the statistics of an array.

import { values } from "./arrays.js";
import { el, shown } from "./dom.js";
import { choose, chosen, onChoose, resolved } from "./state.js";

let count = 0;

// options: names, keys of the page's choices that change together; label; titles, one for each.
export function choice(root, options) {
  const id = `choice-${++count}`;
  const picker = el("select", { id }, ...options.titles.map((title, index) => el("option", { value: index }, title)));
  picker.addEventListener("change", () => {
    const index = Number(picker.value);
    for (const name of options.names) choose(name, index);
  });
  onChoose(options.names[0], () => (picker.value = String(chosen(options.names[0]))));
  root.replaceChildren(el("label", { for: id }, options.label, " "), picker);
}

// options: arrays, the names of one or several arrays; `values.statistics` has the numbers of each.
export function statistics(root, options) {
  const show = () => {
    const names = options.arrays.map(resolved);
    const keys = Object.keys(values.statistics[names[0]]);
    const rows = names.map((name) =>
      el(
        "tr", {}, el("th", { scope: "row" }, el("code", {}, name)),
        ...keys.map((key) => el("td", { class: "number" }, format(values.statistics[name][key]))),
      ),
    );
    const head = el("tr", {}, el("th", { scope: "col" }, "array"), ...keys.map((key) => el("th", { scope: "col" }, key)));
    const table = el("table", {}, el("caption", {}, "Statistics, exact"), el("thead", {}, head), el("tbody", {}, ...rows));
    root.replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Statistics" }, table));
  };
  const format = (value) => (typeof value === "number" ? shown(value) : String(value));
  for (const name of Object.keys(values.choices ?? {})) onChoose(name, show);
  show();
}
