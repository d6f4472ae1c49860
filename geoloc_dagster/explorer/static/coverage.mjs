/** Coverage: where imagery has been collected, how old it is, and what a place has looked like through the years. */

import * as api from './api.mjs';
import { columnChart } from './charts.mjs';
import { field, h, notice, put, section, select, table, choice } from './dom.mjs';
import * as format from './format.mjs';
import { collection } from './geo.mjs';
import { createMap } from './map.mjs';
import { MOST_POINTS } from './places.mjs';
import { PlaceViews } from './place_views.mjs';

const LISTED = 200;
export const STATUSES = {
  collected: ['--status-collected', 'collected'], pending: ['--status-pending', 'views still to be fetched'], failed: ['--status-failed', 'nothing usable'],
  empty: ['--status-empty', 'no imagery there'], new: ['--status-new', 'not looked at yet'],
};
const AGES = [[1, '--seq-5', 'newer than 1 year'], [3, '--seq-4', '1 to 3 years'], [6, '--seq-3', '3 to 6 years'], [10, '--seq-2', '6 to 10 years'], [Infinity, '--seq-1', 'older than 10 years']];

/** @param {Element} container @param {import('./app.mjs').Context} context */
export async function mount(container, context) {
  const { region, signal } = context;
  container.append(h('div', { class: 'lead' }, h('h1', {}, 'What is collected'), h('p', {}, `Street-level pictures of ${region.name}, by place and date.`)));
  if (region.has.coverage !== true) {
    container.append(notice(String(region.has.coverage || 'Nothing has been collected yet.')));
    return;
  }
  const summary = await api.get('/coverage', { signal });
  await new CoverageView(container, context, summary).open();
}

class CoverageView {
  #context;
  #summary;
  #filters = { series: '', status: '', since: '', until: '' };
  #colourBy = 'status';
  #map;
  #mapFrame = h('section', { 'aria-label': 'Map of locations' });
  #list = h('div');
  #views;
  #data = collection([]);
  #loading = new AbortController();
  #container;

  constructor(container, context, summary) {
    this.#container = container;
    this.#context = context;
    this.#summary = summary;
    this.#views = new PlaceViews(context, (id) => this.#mark(id));
  }

  get #isTiled() { return this.#summary.locations > MOST_POINTS; }

  async open() {
    const { region, signal } = this.#context;
    this.#container.append(totals(this.#summary), this.#controls(),
      h('div', { class: 'split' }, this.#mapFrame, this.#views.element),
      section('Locations', this.#list), charts(this.#summary));
    this.#map = await createMap(this.#mapFrame, region, { label: `Map of ${region.name} with its locations; they are listed in the table below`, signal });
    await this.#load();
  }

  #controls() {
    const set = (name) => (value) => { this.#filters[name] = value; this.#load(); };
    const years = this.#summary.by_year.map(({ year }) => [String(year), String(year)]);
    const all = [['', 'all']];
    return h('div', { class: 'controls', role: 'group', 'aria-label': 'Which locations are shown' },
      choice('Colour by', 'colour', [['status', 'Status'], ['age', 'Age of the newest picture']], this.#colourBy, (value) => { this.#colourBy = value; this.#draw(); }),
      field('Series', select([...all, ...this.#summary.by_series.map(({ series }) => [series, series])], '', set('series'))),
      field('Status', select([...all, ...Object.entries(STATUSES).map(([value, [, text]]) => [value, text])], '', set('status'))),
      field('Pictures since', select([['', 'any year'], ...years], '', set('since'))),
      field('Pictures until', select([['', 'any year'], ...years], '', set('until'))));
  }

  async #load() {
    this.#loading.abort();
    this.#loading = new AbortController();
    const { signal } = this.#loading;
    const query = { ...this.#filters, limit: this.#isTiled ? LISTED : '' };
    try {
      const { features } = await api.get('/locations', { query, signal });
      if (this.#context.signal.aborted) return;
      this.#data = collection(features.slice(0, this.#isTiled ? LISTED : undefined));
      this.#draw();
      this.#showList();
      this.#context.say(this.#isTiled ? 'The map shows the filtered locations' : `${format.count(features.length)} locations`);
    } catch (error) {
      this.#context.fail(put(this.#list), error);
    }
  }

  #draw() {
    const source = this.#isTiled ? { tiles: { url: 'tiles/{z}/{x}/{y}.mvt', layer: 'locations' }, filter: expression(this.#filters) } : { data: this.#data };
    this.#map.setLayer({
      id: 'locations', kind: 'circle', radius: 5, colour: colours(this.#colourBy), onSelect: (properties, at) => this.#select(properties.location_id, at), ...source,
    });
    this.#map.setLegend(this.#colourBy === 'status' ? 'Status' : 'Newest picture', legend(this.#colourBy, this.#summary));
  }

  #showList() {
    const shown = this.#data.features.slice(0, LISTED);
    const more = this.#isTiled ? this.#summary.locations > LISTED : this.#data.features.length > LISTED;
    const rows = shown.map(({ properties: one, geometry }) => [
      h('button', { type: 'button', class: 'link', 'data-location': one.location_id, on: { click: () => this.#select(one.location_id, { lng: geometry.coordinates[0], lat: geometry.coordinates[1] }, true) } }, one.location_id),
      one.series, STATUSES[one.status]?.[1] ?? one.status, format.count(one.captures), one.first_on ? format.date(one.first_on) : '–', one.last_on ? format.date(one.last_on) : '–',
    ]);
    if (!rows.length) { put(this.#list, notice('No location is left by these filters.')); return; }
    const frame = table('Locations', ['Location', 'Series', 'Status', '#Pictures', 'Oldest', 'Newest'], rows);
    frame.classList.add('tall');
    put(this.#list, more ? h('p', { class: 'muted' }, `The first ${LISTED}${this.#isTiled ? '' : ` of ${format.count(this.#data.features.length)}`}; the map shows all.`) : null, frame);
  }

  async #select(id, at, fromList = false) {
    this.#mark(id);
    this.#map.setMarkers([{ id: 'chosen', kind: 'place', lat: at.lat, lng: at.lng, title: `Location ${id}` }]);
    if (fromList) this.#map.keepInView(at);
    await this.#views.show(id, (found) => this.#map.setMarkers([{ id: 'chosen', kind: 'place', lat: found.lat_deg, lng: found.lng_deg, title: `Location ${id}` }]));
  }

  #mark(id) {
    for (const button of this.#list.querySelectorAll('[data-location]')) {
      button.closest('tr').classList.toggle('selected', button.dataset.location === id);
    }
  }
}

function totals({ locations, captures, by_year: years }) {
  const one = (value, text) => h('li', {}, h('strong', {}, value), h('span', {}, text));
  return h('section', { class: 'card', 'aria-label': 'In all' }, h('ul', { class: 'totals' }, one(format.count(locations), 'locations'), one(format.count(captures), 'pictures'),
    years.length ? one(`${years[0].year}–${years.at(-1).year}`, 'years of capture') : null));
}

function colours(by) {
  if (by === 'status') return { by: 'status', values: Object.fromEntries(Object.entries(STATUSES).map(([name, [token]]) => [name, token])), other: '--none' };
  const year = new Date().getFullYear();
  const oldestFirst = [...AGES].reverse().map(([years, token]) => [Number.isFinite(years) ? year - years : 0, token]);
  return { by: 'last_on', year: true, steps: oldestFirst, other: '--none' };
}

function legend(by, { by_series: series }) {
  if (by === 'age') return [...AGES.map(([, colour, text]) => ({ colour, text })), { colour: '--none', text: 'no picture' }];
  return Object.entries(STATUSES).map(([name, [colour, text]]) => {
    const n = series.reduce((sum, one) => sum + (one[name] ?? 0), 0);
    return { colour, text: n ? `${text} (${format.count(n)})` : text };
  });
}

function expression({ series, status, since, until }) {
  const year = (name, otherwise) => ['to-number', ['slice', ['coalesce', ['get', name], otherwise], 0, 4]];
  const parts = [];
  if (series) parts.push(['==', ['get', 'series'], series]);
  if (status) parts.push(['==', ['get', 'status'], status]);
  if (since) parts.push(['>=', year('last_on', '0000'), Number(since)]);
  if (until) parts.push(['<=', year('first_on', '9999'), Number(until)]);
  return ['all', ...parts];
}

function charts(summary) {
  const { by_series: series, by_year: years, by_heading: headings, by_age: ages, nights } = summary;
  const statuses = Object.keys(STATUSES).filter((name) => series.some((one) => one[name]));
  const bySeries = table('Locations of each series by status', ['Series', '#Locations', ...statuses.map((name) => `#${STATUSES[name][1]}`)],
    series.map((one) => [one.series, format.count(one.locations), ...statuses.map((name) => format.count(one[name] ?? 0))]));
  return h('div', {}, section('By series', bySeries), h('div', { class: 'columns' },
    section('By year', columnChart('Pictures by year of capture', 'Year', years.map(({ year, captures }) => ({ label: String(year), value: captures })))),
    section('By age', columnChart('Places by age of their newest picture, years', 'Years', ages.map(({ years: age, locations }) => ({ label: String(age), value: locations })))),
    section('By heading', columnChart('Pictures by heading', 'Heading', headings.map(({ heading, captures }) => ({ label: typeof heading === 'number' ? format.heading(heading) : String(heading), value: captures })))),
    section('By night', columnChart('Pictures fetched each night', 'Night', nights.map(({ date, captures }) => ({ label: format.date(date).replace(/ \d{4}$/, ''), value: captures }))))));
}
