/** The atlas: what is known of every district, as a map coloured by one figure and as a table of all. */

import * as api from './api.mjs';
import { choice, field, h, notice, put, select, table } from './dom.mjs';
import * as format from './format.mjs';
import { collection } from './geo.mjs';
import { createMap } from './map.mjs';

const SCALE = ['--seq-1', '--seq-2', '--seq-3', '--seq-4', '--seq-5'];
const FIGURES = {
  recall: { title: 'Found', write: (value) => format.percent(value) },
  coverage: { title: 'Regions that hold the place', write: (value) => format.percent(value) },
  age_years: { title: 'Median age of pictures, years', write: (value) => `${value.toFixed(1)}` },
  region_km2: { title: 'Median region', write: format.area },
};
const COUNTS = [['n_places', 'Places'], ['n_pictures', 'Pictures'], ['n_queries', 'Queries']];

export class Atlas {
  element = h('section', { class: 'card', 'aria-label': 'Districts' });
  #context;
  #sources;
  #of;
  #figure = 'recall';
  #map;
  #mapFrame = h('div');
  #list = h('div');
  #data = collection([]);

  constructor(context, { fusion, models }) {
    this.#context = context;
    this.#sources = [...(fusion ? [['fusion', 'all experts together']] : []), ...models.map((one) => [one.model_version, `${one.recipe} · ${one.model_version}`])];
    this.#of = this.#sources[0]?.[0];
  }

  async open() {
    const { region, signal } = this.#context;
    if (!this.#of) { this.element.remove(); return; }
    const figures = Object.entries(FIGURES).map(([name, { title }]) => [name, title.replace(', years', '')]);
    put(this.element, h('h2', {}, 'Districts'), h('div', { class: 'controls' },
      field('Answers of', select(this.#sources, this.#of, (value) => { this.#of = value; this.#load(); })),
      choice('Colour by', 'atlas', figures, this.#figure, (value) => { this.#figure = value; this.#draw(); })),
    h('div', { class: 'split' }, this.#mapFrame, this.#list));
    this.#map = await createMap(this.#mapFrame, region, { label: `Map of the districts of ${region.name}; their figures are in the table beside it`, signal });
    await this.#load();
  }

  async #load() {
    try {
      this.#data = await api.get('/atlas', { query: { of: this.#of }, signal: this.#context.signal });
    } catch (error) {
      this.#data = collection([]);
      this.#draw();
      if (error.status === 404) put(this.#list, notice(error.detail || 'There is no atlas of this.'));
      else this.#context.fail(put(this.#list), error);
      return;
    }
    this.#draw();
    this.#showTable();
  }

  #draw() {
    const known = this.#data.features.filter(({ geometry }) => geometry);
    const values = known.map(({ properties }) => properties[this.#figure]).filter(Number.isFinite);
    const scale = steps(values);
    this.#map.setLayer({ id: 'atlas', kind: 'fill', opacity: 0.75, colour: { by: this.#figure, steps: scale, other: '--none' }, data: collection(known) });
    const { title, write } = FIGURES[this.#figure];
    const entries = scale.map(([least, colour]) => ({ colour, text: `from ${write(least)}` }));
    this.#map.setLegend(title, values.length ? [...entries, ...(values.length < known.length ? [{ colour: '--none', text: 'too few places to say' }] : [])] : []);
  }

  #showTable() {
    const shown = Object.entries(FIGURES).filter(([name]) => this.#data.features.some(({ properties }) => Number.isFinite(properties[name])));
    const rows = [...this.#data.features].map(({ properties: one }) => one).sort((a, b) => (b.n_pictures ?? 0) - (a.n_pictures ?? 0)).map((one) => [
      one.name, ...COUNTS.map(([name]) => format.count(one[name])), ...shown.map(([name, { write }]) => interval(one, name, write)),
    ]);
    if (!rows.length) { put(this.#list, notice('No district is known.')); return; }
    const day = this.#data.features[0].properties.as_of;
    const frame = table('Figures of every district', ['District', ...COUNTS.map(([, text]) => `#${text}`), ...shown.map(([, { title }]) => `#${title}`)], rows);
    frame.classList.add('tall');
    put(this.#list, day ? h('p', { class: 'muted small' }, `Ages on ${format.date(day)}; in brackets 95 % intervals.`) : null, frame);
  }
}

function interval(row, name, write) {
  if (!Number.isFinite(row[name])) return '–';
  const [low, high] = [row[`${name}_low`], row[`${name}_high`]];
  return Number.isFinite(low) && Number.isFinite(high) ? [write(row[name]), h('br'), h('span', { class: 'muted small' }, `(${write(low)} to ${write(high)})`)] : write(row[name]);
}

/** Five equal classes between the least and the largest value. */
function steps(values) {
  if (!values.length) return [[0, SCALE[2]]];
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (least === most) return [[least, SCALE[2]]];
  return SCALE.map((token, i) => [least + ((most - least) * i) / SCALE.length, token]);
}
