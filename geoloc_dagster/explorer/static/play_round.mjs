/** One round: the views, a guess by mouse, finger, keys or typed, and what comes of it. */

import * as api from './api.mjs';
import { field, h, put } from './dom.mjs';
import * as format from './format.mjs';
import { collection, line } from './geo.mjs';
import { districtLabels } from './basemap.mjs';
import { createMap } from './map.mjs';
import { initials, initialsKey } from './markers.mjs';
import { PlacesLayer } from './places.mjs';
import { runningTable } from './play_results.mjs';

const STEP_PX = 12;
const FAST = 5;
const NO_MODEL = { score: null, distance_m: null };
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Show a round until its result has been read.
 * @param {Element} container
 * @param {import('./app.mjs').Context} context
 * @param {import('./play_game.mjs').Game} game
 */
export async function playRound(container, context, game) {
  const path = `/games/${encodeURIComponent(game.code)}/rounds/${game.round}`;
  const round = await api.get(path, { signal: context.signal });
  const screen = new Round(container, context, game, path, round);
  await screen.open();
  await screen.done;
}

class Round {
  #context;
  #game;
  #path;
  #map;
  #life = new AbortController();
  #guess = null;
  #answered = false;
  #finish;
  #lat = coordinate('lat', 'Latitude', -90, 90);
  #lng = coordinate('lng', 'Longitude', -180, 180);
  #send = h('button', { type: 'submit', disabled: true, id: 'guess' }, 'Guess');
  #form;
  #result = h('div', { 'aria-live': 'polite' });
  #mapFrame = h('section', { 'aria-label': 'Map' });

  constructor(container, context, game, path, round) {
    Object.assign(this, { done: new Promise((resolve) => { this.#finish = resolve; }) });
    this.#context = context;
    this.#game = game;
    this.#path = path;
    context.signal.addEventListener('abort', () => { this.#life.abort(); this.#finish(); }, { signal: this.#life.signal });
    this.#form = this.#guessForm();
    const title = h('h1', { tabindex: '-1' }, `Round ${game.round} of ${game.rounds}`);
    put(container, h('div', { class: 'lead' }, title, h('p', {}, game.player ? `${game.player} against the model` : 'You against the model')),
      this.#result,
      h('div', { class: 'game' }, views(round), h('div', {}, this.#mapFrame, this.#form)),
      game.results.length ? runningTable(game) : null);
    this.running = container;
    title.focus({ preventScroll: true });
  }

  async open() {
    const { region } = this.#context;
    this.#map = await createMap(this.#mapFrame, region, {
      label: `Map of ${region.name}: place your guess. Arrow keys move it, Enter guesses, plus and minus zoom.`,
      signal: this.#life.signal, onClick: (at) => this.#place(at),
    });
    this.#map.releaseArrowKeys();
    this.#map.element.addEventListener('keydown', (event) => this.#pressed(event));
    this.#map.setLegend('', [{ marker: 'you', text: 'your guess' }]);
    await new PlacesLayer(this.#map, this.#context).show();
  }

  #guessForm() {
    const typed = () => {
      const [lat, lng] = [this.#lat.value, this.#lng.value].map((text) => (text.trim() === '' ? NaN : Number(text.replace(',', '.'))));
      if (Number.isFinite(lat) && Number.isFinite(lng) && Math.abs(lat) <= 90 && Math.abs(lng) <= 180) this.#place({ lat, lng }, { typed: true });
    };
    this.#lat.addEventListener('input', typed);
    this.#lng.addEventListener('input', typed);
    const labels = districtLabels(this.#context.region).sort((a, b) => a.text.localeCompare(b.text));
    const jump = labels.length ? h('select', {
      id: 'district', on: { change: (event) => { if (event.target.value) this.#place(labels[Number(event.target.value)]); } },
    }, h('option', { value: '' }, 'choose …'), labels.map(({ text }, i) => h('option', { value: i }, text))) : null;
    return h('form', { class: 'play-bar', on: { submit: (event) => { event.preventDefault(); this.#submit(); } } },
      this.#send, field('Latitude', this.#lat), field('Longitude', this.#lng), jump ? field('Middle of a district', jump) : null,
      h('p', { class: 'muted small' }, 'Click the map, or move the guess with the arrow keys while the map has the focus (with Shift: faster), or type a position.'));
  }

  #place(at, { typed = false } = {}) {
    if (this.#answered) return;
    this.#guess = { lat: at.lat, lng: at.lng };
    if (!typed) {
      this.#lat.value = at.lat.toFixed(5);
      this.#lng.value = at.lng.toFixed(5);
    }
    this.#send.disabled = false;
    this.#map.setMarkers([{ id: 'you', kind: 'you', ...this.#guess, title: 'Your guess' }]);
    this.#map.keepInView(this.#guess);
  }

  #pressed(event) {
    const move = KEYS[event.key];
    if (event.key === '+' || event.key === '=') this.#map.zoom(1);
    else if (event.key === '-') this.#map.zoom(-1);
    else if (this.#answered) return;
    else if (event.key === 'Enter' && this.#guess) this.#submit();
    else if (move) {
      const step = STEP_PX * (event.shiftKey ? FAST : 1);
      this.#place(this.#guess ? this.#map.shifted(this.#guess, move[0] * step, move[1] * step) : this.#map.centre());
      this.#context.say(`Guess at ${format.position(this.#guess.lat, this.#guess.lng, 4)}`);
    } else return;
    event.preventDefault();
  }

  async #submit() {
    if (!this.#guess || this.#answered || this.#send.disabled) return;
    this.#send.disabled = true;
    const guess = { lat_deg: this.#guess.lat, lng_deg: this.#guess.lng };
    try {
      const answer = await api.post(`${this.#path}/guess`, guess, this.#context.signal);
      this.#answered = true;
      this.#game.add({ guess, answer });
      this.#reveal(guess, answer);
    } catch (error) {
      this.#send.disabled = false;
      this.#context.fail(put(this.#result), error);
    }
  }

  #reveal(guess, answer) {
    const { truth, you, experts } = answer;
    const model = answer.model ?? NO_MODEL;
    const next = h('button', { type: 'button', id: 'next', on: { click: () => { this.#life.abort(); this.#finish(); } } },
      this.#game.isOver ? 'See the result' : 'Next round');
    const taken = [truth.district, truth.captured_on && format.date(truth.captured_on)].filter(Boolean).join(', ');
    put(this.#result, h('section', { class: 'card', 'aria-label': 'Result of the round' },
      h('h2', {}, verdict(you, model)),
      h('ul', { class: 'scores' }, score('you', this.#game.player || 'You', you), score('model', 'Model', model, model.refusal ?? answer.no_model),
        Object.entries(experts ?? {}).map(([name, one]) => score('expert', name, one))),
      h('p', {}, `It is at ${format.position(truth.lat_deg, truth.lng_deg)}${taken ? ` (${taken})` : ''}.`), next));
    this.#form.hidden = true;
    this.#draw(guess, answer);
    document.getElementById('running')?.remove();
    this.running.append(runningTable(this.#game));
    this.#context.say(`${verdict(you, model)}. You: ${format.distance(you.distance_m)}, ${format.count(you.score)} points.${answer.model ? ` Model: ${format.distance(model.distance_m)}, ${format.count(model.score)} points.` : ''}`);
    next.focus({ preventScroll: true });
    this.#result.scrollIntoView({ block: 'start' });
  }

  #draw({ lat_deg: lat, lng_deg: lng }, { truth, model: said, experts }) {
    const model = said ?? NO_MODEL;
    const at = (one) => [one.lat_deg, one.lng_deg];
    const answered = Number.isFinite(model.lat_deg);
    const lines = [line([[lat, lng], at(truth)], { of: 'you' }), ...(answered ? [line([at(model), at(truth)], { of: 'model' })] : [])];
    const others = Object.entries(experts ?? {}).filter(([, one]) => Number.isFinite(one.lat_deg));
    const short = initials(others.map(([name]) => name));
    const colour = { by: 'of', values: { you: '--you', model: '--model' }, other: '--expert' };
    this.#map.setLayer({ id: 'reveal', kind: 'line', width: 2.5, colour, data: collection(lines) });
    this.#map.setMarkers([
      ...others.map(([name, one]) => ({ id: name, kind: 'expert', lat: one.lat_deg, lng: one.lng_deg, title: `${name}: ${format.distance(one.distance_m)} away`, text: short[name] })),
      ...(answered ? [{ id: 'model', kind: 'model', lat: model.lat_deg, lng: model.lng_deg, title: `Model: ${format.distance(model.distance_m)} away` }] : []),
      { id: 'truth', kind: 'truth', lat: truth.lat_deg, lng: truth.lng_deg, title: 'True position' },
      { id: 'you', kind: 'you', lat, lng, title: 'Your guess' },
    ]);
    this.#map.setLegend('', [
      { marker: 'truth', text: 'true position' }, { marker: 'you', text: this.#game.player || 'you' }, { marker: 'model', text: 'model' },
      ...(others.length ? [{ marker: 'expert', text: `experts (${initialsKey(others.map(([name]) => name))})` }] : []),
    ]);
    this.#map.fitTo([[lat, lng], at(truth), ...(answered ? [at(model)] : [])], [], 500);
  }
}

function views(round) {
  const one = ({ url, heading_deg: heading }, i) => h('figure', {},
    h('img', { src: url, alt: `View ${i + 1} of the place${Number.isFinite(heading) ? `, facing ${format.heading(heading)}` : ''}`, width: 448, height: 448 }),
    Number.isFinite(heading) ? h('figcaption', {}, `Facing ${format.heading(heading)}`) : null);
  return h('section', { class: round.views.length > 1 ? 'views-4' : 'views-1', 'aria-label': 'Views of the place' }, round.views.map(one));
}

function coordinate(id, label, min, max) {
  return h('input', { class: 'coordinates', id, inputmode: 'decimal', autocomplete: 'off', pattern: '-?[0-9]+([.,][0-9]+)?', title: `${label}, degrees from ${min} to ${max}` });
}

function score(kind, name, one, refusal) {
  return h('li', { class: kind }, h('strong', {}, format.count(one.score)),
    h('span', {}, `${name}: ${Number.isFinite(one.distance_m) ? `${format.distance(one.distance_m)} away` : 'no answer'}`, refusal ? h('br') : null, refusal ?? null));
}

function verdict(you, model) {
  if (model.score === null) return 'The model gave no answer';
  if (you.score > model.score) return 'You were closer than the model';
  return you.score === model.score ? 'A draw' : 'The model was closer';
}
