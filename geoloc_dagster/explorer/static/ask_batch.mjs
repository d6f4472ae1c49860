/** Many photos: a table of their answers, to look at and to take along. */

import { download, h, noPreview, table } from './dom.mjs';
import * as format from './format.mjs';

/**
 * @param {import('./ask.mjs').Item[]} items
 * @param {import('./ask.mjs').Item|null} current the one that is shown
 * @param {{coverage: number, named: boolean}} shown coverage of the regions; whether districts have names
 * @param {(item: import('./ask.mjs').Item) => void} onSelect
 */
export function batchTable(items, current, { coverage, named }, onSelect) {
  const done = items.filter(({ answer, error }) => answer || error).length;
  const refused = items.filter(({ answer }) => answer && !answer.answered).length;
  const failed = items.filter(({ error }) => error).length;
  const parts = [`${done} of ${items.length} done`, refused && `${refused} outside or refused`, failed && `${failed} could not be read`];
  const frame = table('Answers to several photos', ['Photo', 'File', 'Answer', 'Best position', '#Within 100 m', `#${format.percent(coverage)} region`],
    items.map((item) => row(item, named, () => onSelect(item))),
    { rowAttributes: (i) => ({ class: items[i] === current ? 'selected' : '' }) });
  frame.classList.add('tall');
  return [h('h2', {}, `${items.length} photos`), h('p', { class: 'muted' }, parts.filter(Boolean).join(', ')), frame,
    h('div', { class: 'controls' },
      h('button', { type: 'button', class: 'quiet', disabled: done === 0, on: { click: () => download('answers.csv', 'text/csv', asCsv(items)) } }, 'Download CSV'),
      h('button', { type: 'button', class: 'quiet', disabled: done === 0, on: { click: () => download('answers.jsonl', 'application/x-ndjson', asJsonLines(items)) } }, 'Download JSON lines'))];
}

function row(item, named, onSelect) {
  const { answer, error } = item;
  const said = error ? error.title : !answer ? 'waiting' : answer.answered ? (named && answer.district) || 'answered' : 'outside this region';
  return [
    h('img', { src: item.url, alt: '', on: { error: noPreview } }),
    answer || error ? h('button', { type: 'button', class: 'link', on: { click: onSelect } }, item.name) : item.name,
    said,
    answer?.answered ? format.position(answer.lat_deg, answer.lng_deg, 4) : '–',
    format.probability(answer?.answered ? answer.probability_within_m?.['100'] : null),
    format.area(answer?.answered ? answer.region?.area_km2 : null),
  ];
}

const COLUMNS = ['photo', 'answered', 'refusal', 'lat_deg', 'lng_deg', 'district', 'region_coverage', 'region_km2'];

/** One line per photo, RFC 4180. @param {import('./ask.mjs').Item[]} items */
export function asCsv(items) {
  const radii = [...new Set(items.flatMap(({ answer }) => Object.keys(answer?.probability_within_m ?? {})))].sort((a, b) => a - b);
  const lines = items.filter(({ answer, error }) => answer || error).map(({ name, answer, error }) => [
    name, Boolean(answer?.answered), error ? `${error.title}: ${error.detail}` : answer.refusal, answer?.lat_deg, answer?.lng_deg, answer?.district,
    answer?.region?.coverage, answer?.region?.area_km2, ...radii.map((radius) => answer?.probability_within_m?.[radius]),
  ]);
  return [[...COLUMNS, ...radii.map((radius) => `p_within_${radius}_m`)], ...lines].map((cells) => `${cells.map(cell).join(',')}\r\n`).join('');
}

/** The API's own answers, one a line, without their heat maps. @param {import('./ask.mjs').Item[]} items */
export function asJsonLines(items) {
  return items.filter(({ answer, error }) => answer || error)
    .map(({ name, answer, error }) => `${JSON.stringify(answer ? { ...answer, photo: name, heat: undefined } : { photo: name, error })}\n`).join('');
}

function cell(value) {
  if (value === null || value === undefined) return '';
  const text = String(value);
  const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // a spreadsheet would run a formula
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
