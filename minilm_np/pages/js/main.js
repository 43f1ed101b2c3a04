// Starts the views of the page: each when it comes near the window, and the rest when the browser has time.

import { attention } from "./attention.js";
import { bars } from "./bars.js";
import { heatMap } from "./heat_map.js";
import { lineChart } from "./line_chart.js";
import { onSelect, select, selected } from "./state.js";
import { choice, statistics } from "./step.js";
import { startTheme } from "./theme.js";
import { selectionBar, tokens } from "./tokens.js";

const VIEWS = {
  attention, bars, choice, "heat-map": heatMap, "line-chart": lineChart, "selection-bar": selectionBar, statistics, tokens,
};

function start(root) {
  if (root.dataset.state) return;
  root.dataset.state = "starting";
  Promise.resolve(VIEWS[root.dataset.view](root, JSON.parse(root.dataset.options))).then(
    () => (root.dataset.state = "ready"),
    (error) => {
      root.dataset.state = "failed";
      root.textContent = "This view could not be drawn.";
      console.error(error);
    },
  );
}

// Rows of tables that Python wrote share the selection of their axis.
function startRows() {
  for (const row of document.querySelectorAll("tr[data-axis]")) {
    const index = Number(row.dataset.index);
    row.addEventListener("click", () => select(row.dataset.axis, index));
    onSelect(row.dataset.axis, () => row.classList.toggle("chosen", selected(row.dataset.axis) === index));
  }
}

startTheme();
startRows();
const near = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && start(entry.target)),
  { rootMargin: "300px" },
);
const waiting = [...document.querySelectorAll("[data-view]")];
waiting.forEach((root) => near.observe(root));

// What no closed step hides is drawn in time for printing.
const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
function startNext() {
  const next = waiting.find((root) => !root.dataset.state && !root.closest("details:not([open])"));
  if (next) {
    start(next);
    later(startNext);
  } else document.documentElement.dataset.ready = "";
}
addEventListener("toggle", () => later(startNext), { capture: true }); // a step was opened
later(startNext);
