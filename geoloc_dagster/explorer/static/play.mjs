/** Play: the same held-out views for you and the model, both scored by distance. A game is its code, so it can be shared. */

import * as api from './api.mjs';
import { choice, field, h, notice, put, section, table } from './dom.mjs';
import * as format from './format.mjs';
import { Game } from './play_game.mjs';
import { playRound } from './play_round.mjs';
import { finalScreen } from './play_results.mjs';

const NUMBER = { type: 'number', required: true };

/** @param {Element} container @param {import('./app.mjs').Context} context */
export async function mount(container, context) {
  const { region, argument } = context;
  if (region.has.play !== true) {
    container.append(h('h1', {}, 'Play against the model'), notice(String(region.has.play || 'There are no held-out views to play with yet.')));
    return;
  }
  if (argument) await openGame(container, context, argument);
  else setup(container, context);
}

function setup(container, context) {
  const { region, signal } = context;
  const wanted = { views: '4' };
  const problems = h('div');
  const rounds = h('input', { ...NUMBER, min: 1, max: 50, value: 5, id: 'rounds' });
  const seed = h('input', { type: 'number', step: 1, min: 0, max: 2147483647, placeholder: 'by chance', id: 'seed' });
  const code = h('input', { required: true, autocomplete: 'off', spellcheck: 'false', id: 'code' });
  const start = async (event) => {
    event.preventDefault();
    put(problems);
    try {
      const body = { seed: seed.value === '' ? null : Number(seed.value), rounds: Number(rounds.value), views: Number(wanted.views) };
      const game = await api.post('/games', body, signal);
      location.hash = `#play/${encodeURIComponent(game.code)}`;
    } catch (error) {
      context.fail(problems, error);
    }
  };
  const join = (event) => {
    event.preventDefault();
    const typed = code.value.trim();
    location.hash = `#play/${encodeURIComponent(typed.includes('#play/') ? decodeURIComponent(typed.split('#play/')[1]) : typed)}`;
  };
  container.append(
    h('div', { class: 'lead' }, h('h1', {}, 'Play against the model'),
      h('p', {}, `You see views of ${region.name} that no model was trained on, and say on the map where they are.`)),
    h('div', { class: 'columns' },
      section('New game', h('form', { on: { submit: start } },
        h('div', { class: 'controls' }, field('Rounds', rounds), field('Seed', seed),
          choice('Views of each place', 'views', [['1', 'One'], ['4', 'Four headings']], wanted.views, (value) => { wanted.views = value; })),
        h('p', { class: 'muted small' }, 'The same seed gives the same places. Everybody who opens the game’s link plays the same rounds.'),
        problems, h('button', { type: 'submit' }, 'Start'))),
      section('Join a game', h('form', { on: { submit: join } },
        h('div', { class: 'controls' }, field('Code or link', code)), h('button', { type: 'submit', class: 'quiet' }, 'Open'))),
      section('How it is scored', h('p', {}, `Each round gives 0 to 5,000 points, by the distance between the guess and the true position alone; ${distances(region.score_m)}`),
        h('p', {}, 'The model answers the same views. It learns nothing from your guesses, and the true position reaches this page only after you have guessed.'))));
}

function distances(scale) {
  const at = [0.1, 0.5, 1, 2].map((part) => `${format.count(5000 * Math.exp(-part))} at ${format.distance(part * scale)}`);
  return `${at.slice(0, -1).join(', ')} and ${at.at(-1)}.`;
}

async function openGame(container, context, code) {
  const info = await api.get(`/games/${encodeURIComponent(code)}`, { signal: context.signal });
  const game = new Game(code, info);
  if (game.isStarted) await run(container, context, game);
  else lobby(container, context, game);
}

function lobby(container, context, game) {
  const name = h('input', { value: game.player, autocomplete: 'nickname', maxlength: 40, id: 'player' });
  const earlier = game.finished;
  put(container, h('div', { class: 'lead' }, h('h1', {}, 'Play against the model'), h('p', {}, game.describe())),
    section('Ready?', h('form', {
      on: { submit: (event) => { event.preventDefault(); game.start(name.value.trim()); run(container, context, game).catch((error) => context.fail(container, error)); } },
    }, h('div', { class: 'controls' }, field('Your name, for the table of results on this device', name)), h('button', { type: 'submit' }, 'Begin'))),
    earlier.length ? section('Played on this device', table('Results of this game on this device', ['Player', '#Points', '#Model', 'On'],
      earlier.map((one) => [one.player || 'You', format.count(one.total), format.count(one.model), format.date(one.on)]))) : null);
}

async function run(container, context, game) {
  while (!game.isOver && !context.signal.aborted) {
    put(container, h('p', { class: 'busy' }, 'Loading the round …'));
    await playRound(container, context, game);
  }
  if (context.signal.aborted) return;
  await finalScreen(container, context, game, () => {
    game.restart();
    lobby(container, context, game);
    context.say('The same game from the beginning');
  });
}
