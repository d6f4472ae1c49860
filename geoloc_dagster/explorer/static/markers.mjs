/** The elements that mark positions on a map: told apart by shape and letter, not by colour alone. */

import { h, s } from './dom.mjs';

const SHAPES = {
  you: () => s('path', { d: 'M12 23 L5 11.5 A8 8 0 1 1 19 11.5 Z' }),
  truth: () => s('path', { d: 'M12 1.5 L15.1 8.6 L22.8 9.3 L17 14.4 L18.7 22 L12 18 L5.3 22 L7 14.4 L1.2 9.3 L8.9 8.6 Z' }),
  model: () => s('path', { d: 'M12 1.5 L22.5 12 L12 22.5 L1.5 12 Z' }),
  expert: () => s('rect', { x: 2, y: 2, width: 20, height: 20, rx: 5 }),
  candidate: () => s('circle', { cx: 12, cy: 12, r: 10 }),
  place: () => s('circle', { cx: 12, cy: 12, r: 7 }),
  photo: () => s('rect', { x: 3, y: 3, width: 18, height: 18, rx: 4 }),
};

/**
 * @param {{kind: string, title: string, text?: string, onSelect?: () => void, decoration?: boolean}} marker
 * @returns {HTMLElement}
 */
export function markerElement({ kind, title, text = '', onSelect, decoration = false }) {
  const inside = [s('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true' }, SHAPES[kind]()),
    text ? h('span', { class: 'marker-text', 'aria-hidden': 'true' }, text) : null];
  const attributes = { class: `marker marker-${kind}`, title: decoration ? null : title };
  if (decoration) return h('span', { ...attributes, 'aria-hidden': 'true' }, inside);
  if (!onSelect) return h('div', { ...attributes, role: 'img', 'aria-label': title }, inside);
  return h('button', { ...attributes, type: 'button', 'aria-label': title, on: { click: (event) => { event.stopPropagation(); onSelect(); } } }, inside);
}

/**
 * Short names that tell several apart: the first letter, or two where two begin alike.
 * @param {string[]} names
 * @returns {Record<string, string>}
 */
export function initials(names) {
  const short = (name, length) => name.charAt(0).toUpperCase() + name.slice(1, length);
  const alone = (name) => names.filter((other) => short(other, 1) === short(name, 1)).length === 1;
  return Object.fromEntries(names.map((name) => [name, short(name, alone(name) ? 1 : 2)]));
}

/** What the short names stand for. @param {string[]} names */
export function initialsKey(names) {
  return Object.entries(initials(names)).map(([name, text]) => `${text}: ${name}`).join(', ');
}

/** A name on the map; those who listen read it in the tables. @param {string} text */
export function labelElement(text) {
  return h('div', { class: 'map-label', 'aria-hidden': 'true' }, text);
}

/**
 * Which labels fit without lying over one another; the first ones win.
 * @param {{x: number, y: number, width: number, height: number}[]} boxes by their middles, pixels
 * @returns {boolean[]}
 */
export function fitting(boxes) {
  const taken = [];
  return boxes.map((box) => {
    const hit = taken.some((other) => Math.abs(box.x - other.x) * 2 < box.width + other.width + 8
      && Math.abs(box.y - other.y) * 2 < box.height + other.height + 4);
    if (!hit) taken.push(box);
    return !hit;
  });
}
