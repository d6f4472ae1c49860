/** The views of one place through the years: a slider over its dates and a choice of heading. */

import * as api from './api.mjs';
import { choice, h, put } from './dom.mjs';
import * as format from './format.mjs';
import { credit } from './pictures.mjs';

export class PlaceViews {
  element = h('section', { class: 'card place-view', 'aria-label': 'Views of a location' });
  #context;
  #place = null;
  #dates = [];
  #at = 0;
  #view = null;
  #shown = h('div');
  #slider;
  #said = h('strong');

  /** @param {import('./app.mjs').Context} context */
  constructor(context) {
    this.#context = context;
    put(this.element, h('h2', {}, 'Views through the years'),
      h('p', { class: 'muted' }, 'Choose a location on the map or in the table; its pictures stand here, with a slider over their dates.'));
  }

  /** @param {string} id @param {(place: any) => void} onFound */
  async show(id, onFound) {
    put(this.element, h('p', { class: 'busy' }, `Loading ${id} …`));
    try {
      this.#place = await api.get(`/locations/${encodeURIComponent(id)}`, { signal: this.#context.signal });
    } catch (error) {
      this.#context.fail(put(this.element), error);
      return;
    }
    onFound(this.#place);
    this.#dates = [...new Set(this.#place.views.map((view) => view.captured_on ?? ''))];
    this.#at = this.#dates.length - 1;
    this.#open();
  }

  #open() {
    const place = this.#place;
    const names = [...new Map(place.views.map((view) => [viewName(view), viewText(view)])).entries()];
    const facts = h('dl', { class: 'facts' }, h('dt', {}, 'Position'), h('dd', {}, format.position(place.lat_deg, place.lng_deg)),
      h('dt', {}, 'Batch'), h('dd', {}, place.batch ?? place.series), h('dt', {}, 'Pictures'), h('dd', {}, place.views.length ? `${format.count(place.views.length)} of ${this.#dates.length} date${this.#dates.length === 1 ? '' : 's'}` : 'none'));
    put(this.element, h('h2', {}, `Location ${place.location_id}`), facts);
    if (!place.views.length) {
      this.element.append(h('p', { class: 'notice' }, 'No picture of this location can be shown.'));
      return;
    }
    if (!names.some(([name]) => name === this.#view)) this.#view = names[0][0];
    this.element.append(this.#dateControl(),
      names.length > 1 ? choice('Heading', 'heading', names, this.#view, (name) => { this.#view = name; this.#draw(); }) : '', this.#shown);
    this.#draw();
    this.#context.say(`Location ${place.location_id}, ${place.views.length} pictures`);
  }

  #dateControl() {
    if (this.#dates.length < 2) return h('p', {}, this.#said);
    this.#slider = h('input', {
      type: 'range', min: 0, max: this.#dates.length - 1, step: 1, value: this.#at, id: 'date', 'aria-label': 'Date',
      on: { input: (event) => { this.#at = Number(event.target.value); this.#draw(); } },
    });
    return h('div', {}, h('label', { for: 'date' }, 'Date: ', this.#said), this.#slider,
      h('div', { class: 'slider-ends', 'aria-hidden': 'true' }, h('span', {}, format.date(this.#dates[0])), h('span', {}, format.date(this.#dates.at(-1)))));
  }

  #draw() {
    const day = this.#dates[this.#at];
    this.#said.textContent = format.date(day);
    this.#slider?.setAttribute('aria-valuetext', format.date(day));
    const ofDay = this.#place.views.filter((view) => (view.captured_on ?? '') === day);
    const view = ofDay.find((one) => viewName(one) === this.#view);
    if (!view) {
      put(this.#shown, h('p', { class: 'notice' }, `No picture of this heading on ${format.date(day)}; there are ${ofDay.map(viewText).join(', ')}.`));
      return;
    }
    put(this.#shown, h('figure', { class: 'picture' },
      h('img', { src: view.url, alt: `Location ${this.#place.location_id}, ${viewText(view)}, ${format.date(view.captured_on)}`, width: 448, height: 448 }),
      h('figcaption', {}, credit(view))),
    view.flags?.length ? h('ul', { class: 'flags', 'aria-label': 'Marks of the picture' }, view.flags.map((flag) => h('li', {}, flag))) : null);
  }
}

function viewName(view) {
  return String(view.view ?? view.heading_deg ?? view.rotation ?? '');
}

function viewText(view) {
  if (Number.isFinite(view.heading_deg)) return format.heading(view.heading_deg);
  return Number.isFinite(view.rotation) ? `turn ${view.rotation}` : viewName(view) || 'as taken';
}
