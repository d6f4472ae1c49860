/** Ask: where was this photo taken, how sure is that, and what speaks for it. */

import * as api from './api.mjs';
import { AnswerPanel } from './ask_answer.mjs';
import { batchTable } from './ask_batch.mjs';
import { choice, field, h, notice, put, select, tick } from './dom.mjs';
import * as format from './format.mjs';
import { describe } from './pictures.mjs';

/**
 * A photo that was asked about, or will be.
 * @typedef {{name: string, url: string, file?: File, sample?: any, answer?: any, error?: {title: string, detail: string}}} Item
 */

const ACCEPTED = 'image/jpeg,image/png,image/webp,image/heic,image/heif,image/*';

/** @param {Element} container @param {import('./app.mjs').Context} context */
export async function mount(container, context) {
  const { region } = context;
  container.append(h('div', { class: 'lead' }, h('h1', {}, 'Where is this photo?'),
    h('p', {}, `Answers are positions in ${region.name}${region.area_km2 ? ` (${format.area(region.area_km2)})` : ''}, each with how sure it is.`)));
  if (region.has.predict !== true) {
    container.append(notice(String(region.has.predict || 'There is no release that could answer yet.')));
    return;
  }
  await new AskView(container, context).open();
}

class AskView {
  #context;
  #container;
  #settings;
  /** @type {Item[]} */
  #items = [];
  #current = null;
  #panel;
  #batch = h('section', { class: 'card batch', 'aria-label': 'Answers to several photos', hidden: true });
  #problems = h('div');
  #samples = h('ul', { class: 'strip' });
  #asking = new AbortController();
  #urls = [];

  constructor(container, context) {
    this.#container = container;
    this.#context = context;
    const { region } = context;
    this.#settings = {
      coverage: region.coverage, granularity: region.districts?.features?.length ? 'district' : 'near',
      heat: true, area: true, experts: true, candidates: true,
    };
    context.signal.addEventListener('abort', () => {
      this.#asking.abort();
      this.#urls.forEach((url) => URL.revokeObjectURL(url));
    });
  }

  async open() {
    const answer = h('div', { class: 'answer' });
    this.#container.append(
      h('div', { class: 'intake' }, this.#drop(), h('section', { class: 'card', 'aria-label': 'Held-out views' },
        h('h2', {}, 'Or take a held-out view'),
        h('p', { class: 'muted small' }, 'Views of this region that no model was trained on; their true positions are known.'), this.#samples)),
      this.#options(), this.#problems, this.#batch, answer);
    document.addEventListener('paste', (event) => this.#pasted(event), { signal: this.#context.signal });
    this.#panel = new AnswerPanel(answer, this.#context, this.#settings);
    await Promise.all([this.#panel.open(), this.#showSamples()]);
  }

  #drop() {
    const { limits } = this.#context.region;
    const input = h('input', {
      type: 'file', multiple: true, accept: ACCEPTED, class: 'visually-hidden', id: 'photos', tabindex: '-1', 'aria-label': 'Photos',
      on: { change: (event) => { this.#ask([...event.target.files]); event.target.value = ''; } },
    });
    const zone = h('section', { class: 'drop', 'aria-label': 'Your photos' }, input,
      h('button', { type: 'button', on: { click: () => input.click() } }, 'Choose photos'),
      h('p', {}, 'or drop them here, or paste one'),
      h('p', { class: 'muted small' }, 'Photos are stored nowhere: they are answered in memory and forgotten. Position and date inside the file are not read. ',
        `Up to ${format.count(limits.photos)} at a time, ${format.bytes(limits.bytes)} and ${format.count(limits.pixels / 1e6)} megapixels each.`));
    const over = (event) => { event.preventDefault(); zone.classList.add('over'); };
    zone.addEventListener('dragenter', over);
    zone.addEventListener('dragover', over);
    zone.addEventListener('dragleave', () => zone.classList.remove('over'));
    zone.addEventListener('drop', (event) => {
      event.preventDefault();
      zone.classList.remove('over');
      this.#ask([...event.dataTransfer.files]);
    });
    return zone;
  }

  #options() {
    const { region } = this.#context;
    const settings = this.#settings;
    const change = (name) => (value) => { settings[name] = value; this.#panel.redraw(); };
    const granularity = [['near', 'About 100 m'], ['exact', 'Exact']];
    if (region.districts?.features?.length) granularity.unshift(['district', 'District']);
    const coverage = select(region.coverages.map((value) => [String(value), format.percent(value)]), String(settings.coverage), (value) => {
      settings.coverage = Number(value);
      this.#askAgain();
    });
    coverage.disabled = !region.calibrated;
    return h('div', { class: 'controls', role: 'group', 'aria-label': 'How the answer is shown' },
      choice('How fine', 'granularity', granularity, settings.granularity, change('granularity')),
      field('Region that holds it with', coverage),
      tick('Heat map', true, change('heat')), tick('Region', true, change('area')),
      tick('Experts', true, change('experts')), tick('Candidates', true, change('candidates')));
  }

  async #showSamples() {
    try {
      const { samples } = await api.get('/samples', { query: { n: 12 }, signal: this.#context.signal });
      if (!samples.length) put(this.#samples, h('li', {}, notice('There are no held-out views yet.')));
      else put(this.#samples, samples.map((sample, i) => h('li', {}, h('button', {
        type: 'button', 'aria-pressed': 'false', 'data-sample': sample.capture_id, title: `${describe(sample)}. ${sample.attribution}`,
        on: { click: (event) => this.#askSample(sample, event.currentTarget) },
      }, h('img', { src: sample.url, alt: `Held-out view ${i + 1}, ${format.date(sample.captured_on)}`, width: 104, height: 104 })))));
    } catch (error) {
      this.#context.fail(this.#samples, error);
    }
  }

  #pasted(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    this.#ask(files);
  }

  /** @param {File[]} files */
  async #ask(files) {
    if (!files.length) return;
    this.#clear();
    const { limits } = this.#context.region;
    this.#items = files.map((file) => {
      const url = URL.createObjectURL(file);
      this.#urls.push(url);
      const tooLarge = file.size > limits.bytes && { title: 'Too large', detail: `${format.bytes(file.size)}; at most ${format.bytes(limits.bytes)} are taken.` };
      return { name: file.name || 'pasted photo', url, file, error: tooLarge || undefined };
    });
    await this.#send(this.#items.filter(({ error }) => !error));
  }

  async #askSample(sample, button) {
    this.#clear();
    button.setAttribute('aria-pressed', 'true');
    const item = { name: 'held-out view', url: sample.url, sample };
    this.#items = [item];
    await this.#send(this.#items);
  }

  /** The same photos once more, after a setting that the server needs has changed. */
  #askAgain() {
    this.#asking.abort();
    this.#send(this.#items.filter(({ error }) => !error));
  }

  #clear() {
    this.#asking.abort();
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.#urls = [];
    this.#current = null;
    put(this.#problems);
    for (const button of this.#samples.querySelectorAll('button')) button.setAttribute('aria-pressed', 'false');
  }

  /** @param {Item[]} items */
  async #send(items) {
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#context.say('Asking …');
    this.#panel.busy(this.#items.length);
    put(this.#problems);
    try {
      if (items[0]?.sample) await this.#sendSample(items[0], signal);
      else await this.#sendPhotos(items, signal);
      if (!this.#current) this.#show(this.#items[0]);
      this.#announce();
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.#panel.clear();
      this.#context.fail(this.#problems, error);
    }
    this.#showBatch();
  }

  async #sendSample(item, signal) {
    const query = { coverage: this.#settings.coverage, heat: 1, top: 10 };
    item.answer = await api.get(`/predict/sample/${encodeURIComponent(item.sample.capture_id)}`, { query, signal });
    this.#show(item);
  }

  async #sendPhotos(items, signal) {
    const most = Math.max(1, this.#context.region.limits.photos);
    for (let from = 0; from < items.length; from += most) {
      const part = items.slice(from, from + most);
      let i = 0;
      for await (const answer of api.predict(part.map(({ file }) => file), { coverage: this.#settings.coverage }, signal)) {
        const item = part[i];
        i += 1;
        if (answer.error) item.error = answer.error;
        else item.answer = answer;
        if (!this.#current || this.#current === item) this.#show(item);
        this.#showBatch();
      }
    }
  }

  #show(item) {
    if (!item) return;
    this.#current = item;
    this.#panel.show(item);
    this.#showBatch();
  }

  #showBatch() {
    this.#batch.hidden = this.#items.length < 2;
    if (!this.#batch.hidden) put(this.#batch, batchTable(this.#items, this.#current, this.#settings.coverage, (item) => this.#show(item)));
  }

  #announce() {
    const done = this.#items.filter(({ answer }) => answer).length;
    if (this.#items.length > 1) this.#context.say(`${done} of ${this.#items.length} photos answered`);
    else if (this.#current?.answer) this.#context.say(`Answer: ${this.#panel.headline}`);
    else if (this.#current?.error) this.#context.say(`No answer: ${this.#current.error.title}`);
  }
}
