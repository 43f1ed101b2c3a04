// What the views of a page share: the selected index of each axis, and each choice, such as the layer.

import { values } from "./arrays.js";

const current = new Map();
const listeners = new Map();

export const selected = (axis) => current.get(`axis ${axis}`) ?? null;
export const chosen = (name) => current.get(`choice ${name}`) ?? 0;

// Select an index of an axis; null, or the index that is selected already, selects nothing.
export function select(axis, index) {
  set(`axis ${axis}`, index === selected(axis) ? null : index);
}

export function choose(name, index) {
  set(`choice ${name}`, index);
}

export const onSelect = (axis, listener) => listen(`axis ${axis}`, listener);
export const onChoose = (name, listener) => listen(`choice ${name}`, listener);

// A name of an array or a title, with the page's choices in place of {layer} and the like.
export function resolved(text) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values.choices[name][chosen(name)]);
}

export const choicesIn = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]);

function set(key, value) {
  current.set(key, value);
  for (const listener of listeners.get(key) ?? []) listener();
}

function listen(key, listener) {
  if (!listeners.has(key)) listeners.set(key, new Set());
  listeners.get(key).add(listener);
}
