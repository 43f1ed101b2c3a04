// Light and dark: as the system says, or as the switch says. Paper is always light.

const THEMES = ["auto", "light", "dark"];
const listeners = new Set();
const system = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return !printing && (chosen === "dark" || (chosen !== "light" && system.matches));
}

// The value of a custom property of the style sheet, such as "--ink".
export function property(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Call `draw` whenever the colours change. Charts on a canvas need this; everything else follows the style sheet.
export function onTheme(draw) {
  listeners.add(draw);
}

function changed() {
  for (const draw of listeners) draw();
}

export function startTheme() {
  const select = document.getElementById("theme");
  const choose = (theme) => {
    document.documentElement.dataset.theme = THEMES.includes(theme) ? theme : "auto";
    changed();
  };
  select.addEventListener("change", () => choose(select.value));
  system.addEventListener("change", changed);
  const print = (on) => {
    printing = on;
    document.documentElement.classList.toggle("printing", on);
    changed();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  choose(select.value);
}
