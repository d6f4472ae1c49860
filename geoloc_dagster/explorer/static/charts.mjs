/** Small charts drawn as SVG, each with its numbers as a table for those who want or need them. */

import { count } from './format.mjs';
import { h, s, table } from './dom.mjs';

const [WIDTH, HEIGHT, TOP, BOTTOM] = [320, 120, 14, 18];

/**
 * Columns side by side.
 * @param {string} title with the unit
 * @param {string} name of the rows, such as `year`
 * @param {{label: string, value: number}[]} rows
 */
export function columnChart(title, name, rows) {
  const most = Math.max(...rows.map(({ value }) => value), 1);
  const step = WIDTH / Math.max(rows.length, 1);
  const every = Math.ceil((rows.length * Math.max(...rows.map(({ label }) => label.length), 1) * 7) / WIDTH);
  const column = ({ label, value }, i) => {
    const height = (value / most) * (HEIGHT - TOP - BOTTOM);
    const middle = (i + 0.5) * step;
    const width = Math.min(step * 0.76, 48);
    return [
      s('rect', { x: middle - width / 2, y: HEIGHT - BOTTOM - height, width, height: Math.max(height, value ? 1 : 0), rx: 1.5 }),
      i % every === 0 ? s('text', { x: middle, y: HEIGHT - 4, 'text-anchor': 'middle' }, label) : null,
      value === most && i === rows.findIndex((row) => row.value === most)
        ? s('text', { x: Math.min(Math.max(middle, 14), WIDTH - 14), y: HEIGHT - BOTTOM - height - 4, 'text-anchor': 'middle' }, count(value)) : null,
    ];
  };
  return h('figure', { class: 'chart' }, h('figcaption', {}, title),
    rows.length === 0 ? h('p', { class: 'muted' }, 'Nothing yet.') : [
      s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': summary(title, rows) },
        s('line', { x1: 0, x2: WIDTH, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }), rows.map(column)),
      h('details', {}, h('summary', {}, 'Numbers'), table(title, [name, '#number'], rows.map(({ label, value }) => [label, count(value)]))),
    ]);
}

/**
 * A bar as long as a share, for a table's cell.
 * @param {number} share 0 to 1
 */
export function bar(share) {
  return h('span', { class: 'bar-cell', 'aria-hidden': 'true' }, h('span', { class: 'bar', css: { width: `${Math.max(0, Math.min(1, share)) * 100}%` } }));
}

function summary(title, rows) {
  const total = rows.reduce((sum, { value }) => sum + value, 0);
  const best = rows.reduce((a, b) => (b.value > a.value ? b : a));
  return `${title}: ${rows.length} columns from ${rows[0].label} to ${rows.at(-1).label}, ${count(total)} in all, most at ${best.label} with ${count(best.value)}`;
}
