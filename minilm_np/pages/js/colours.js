// Two colour maps that colour-blind people can read, each for light and dark pages.
// Diverging: blue below zero, orange above, neutral at zero. Sequential: lightness only.

import { isDark } from "./theme.js";

const MAPS = {
  diverging: {
    light: ["#08467f", "#4b92cc", "#f4f4f2", "#e39a4c", "#843c00"],
    dark: ["#a5d5ff", "#3b82c4", "#20242a", "#c47a2c", "#ffd7a3"],
  },
  sequential: {
    light: ["#f6f8fa", "#b9d5ec", "#5b9bd0", "#1d5c9b", "#06264d"],
    dark: ["#1b1f25", "#174a7c", "#2f83c6", "#86bfee", "#eef7ff"],
  },
};
const LEVELS = 255; // odd, so that zero has a level in the middle
const built = new Map();

// A table of LEVELS colours, three bytes each, from the lowest value to the highest.
export function colours(scale) {
  const key = `${scale} ${isDark() ? "dark" : "light"}`;
  if (!built.has(key)) built.set(key, table(MAPS[scale][isDark() ? "dark" : "light"]));
  return built.get(key);
}

// The level of a value, for a scale that ends at `limit`.
export function level(value, limit, scale) {
  const share = scale === "diverging" ? (value / limit + 1) / 2 : value / limit;
  return Math.round(Math.min(1, Math.max(0, share || 0)) * (LEVELS - 1));
}

export function gradient(scale) {
  return `linear-gradient(to right, ${MAPS[scale][isDark() ? "dark" : "light"].join(", ")})`;
}

function table(stops) {
  const bytes = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const result = new Uint8Array(LEVELS * 3);
  for (let i = 0; i < LEVELS; i++) {
    const place = (i / (LEVELS - 1)) * (bytes.length - 1);
    const before = Math.min(bytes.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) {
      result[i * 3 + c] = Math.round(bytes[before][c] + (place - before) * (bytes[before + 1][c] - bytes[before][c]));
    }
  }
  return result;
}
