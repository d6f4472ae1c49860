/** The state of one game on this device: the guesses so far and what came of them. The server keeps none. */

import * as store from './store.mjs';

const key = (code) => `geoloc-game-${code}`;
const NAME = 'geoloc-player';

/**
 * What came of a guess.
 * @typedef {{guess: {lat_deg: number, lng_deg: number}, answer: any}} Result
 */

export class Game {
  /** @type {Result[]} */
  results = [];
  player = store.read(NAME) ?? '';
  finished = [];
  isStarted = false;

  /** @param {string} code @param {{seed: number, rounds: number, views: number}} info as `GET /games/{code}` gives it */
  constructor(code, info) {
    Object.assign(this, { code, rounds: info.rounds, views: info.views, seed: info.seed });
    const kept = store.readJson(key(code));
    if (!kept) return;
    this.finished = kept.finished ?? [];
    if (kept.results?.length) {
      this.results = kept.results.slice(0, this.rounds);
      this.player = kept.player ?? this.player;
      this.isStarted = true;
    }
  }

  /** The round to play, from 1. */
  get round() { return this.results.length + 1; }

  get isOver() { return this.results.length >= this.rounds; }

  /** The link that others open to play the same rounds. */
  get link() { return `${location.origin}${location.pathname}#play/${encodeURIComponent(this.code)}`; }

  describe() {
    return `${this.rounds} round${this.rounds === 1 ? '' : 's'}, ${this.views === 1 ? 'one view' : 'four headings'} each, seed ${this.seed}`;
  }

  /** @param {string} player */
  start(player) {
    this.player = player;
    this.isStarted = true;
    store.write(NAME, player);
  }

  /** @param {Result} result */
  add(result) {
    this.results.push(result);
    if (this.isOver) {
      const { you, model } = this.totals();
      this.finished.push({ player: this.player, total: you, model, on: new Date().toISOString().slice(0, 10) });
    }
    this.#keep();
  }

  restart() {
    this.results = [];
    this.isStarted = false;
    this.#keep();
  }

  /**
   * Points so far of everybody who answers.
   * @returns {{you: number, model: number, experts: Record<string, number>}}
   */
  totals() {
    const sum = (of) => this.results.reduce((total, { answer }) => total + (of(answer)?.score ?? 0), 0);
    const names = [...new Set(this.results.flatMap(({ answer }) => Object.keys(answer.experts ?? {})))];
    return {
      you: sum(({ you }) => you), model: sum(({ model }) => model),
      experts: Object.fromEntries(names.map((name) => [name, sum(({ experts }) => experts?.[name])])),
    };
  }

  #keep() {
    store.writeJson(key(this.code), { player: this.player, results: this.results, finished: this.finished });
  }
}
