/** Two models side by side on the queries that both were asked. */

import * as api from './api.mjs';
import { field, h, notice, put, table } from './dom.mjs';
import * as format from './format.mjs';
import { modelSelect } from './quality.mjs';

export class Compare {
  element = h('section', { class: 'card', 'aria-label': 'Two models side by side' });
  #context;
  #a;
  #b;
  #result = h('div', { 'aria-live': 'polite' });

  constructor(context, models) {
    this.#context = context;
    [this.#a, this.#b] = models;
    put(this.element, h('h2', {}, 'Two models side by side'), h('div', { class: 'controls' },
      field('A', modelSelect(models, this.#a, (one) => { this.#a = one; this.#load(); })),
      field('B', modelSelect(models, this.#b, (one) => { this.#b = one; this.#load(); }))), this.#result);
    this.#load();
  }

  async #load() {
    if (this.#a === this.#b) { put(this.#result, notice('Choose two different models.')); return; }
    put(this.#result, h('p', { class: 'busy' }, 'Comparing …'));
    try {
      const query = { a: this.#a.model_version, b: this.#b.model_version };
      this.#show(await api.get('/quality/compare', { query, signal: this.#context.signal }));
    } catch (error) {
      if (error.status === 409) put(this.#result, notice(error.detail));
      else this.#context.fail(put(this.#result), error);
    }
  }

  #show(found) {
    const unit = format.unitOf({ name: found.metric, unit: found.unit });
    const write = (value) => format.quantity(value, unit);
    const points = (value) => (unit === 'share' ? `${value < 0 ? '−' : '+'}${Math.abs(value * 100).toFixed(1)}` : `${value < 0 ? '−' : '+'}${format.quantity(Math.abs(value))}`);
    const called = unit === 'share' ? 'percentage points' : '';
    const parts = (name, key, rows) => (rows?.length ? table(`${found.metric} by ${key}`, [name, '#Queries', '#A', '#B', `#A − B${called ? ', points' : ''}`],
      rows.map((row) => [String(row[key === 'district' ? 'name' : 'year']), format.count(row.n), write(row.a), write(row.b), points(row.a - row.b)]), { hideCaption: false }) : null);
    put(this.#result,
      h('p', { class: 'verdict' }, found.verdict),
      h('p', {}, `${found.metric}: A ${write(found.a_value)}, B ${write(found.b_value)}; A − B ${points(found.difference)} (${points(found.low)} to ${points(found.high)}) ${called} over ${format.count(found.n_queries)} queries of both, paired by query.`),
      h('div', { class: 'columns' }, parts('District', 'district', found.by_district), parts('Year', 'year', found.by_year)));
  }
}
