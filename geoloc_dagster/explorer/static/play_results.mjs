/** The result of a game so far and at its end: you, the model, and each of its experts. */

import { h, put, section, table } from './dom.mjs';
import * as format from './format.mjs';
import { collection, line } from './geo.mjs';
import { createMap } from './map.mjs';

/** @param {import('./play_game.mjs').Game} game @param {string} [title] @returns {Element} */
export function runningTable(game, title = 'Points so far') {
  const { you, model, experts } = game.totals();
  const names = Object.keys(experts);
  const header = ['Round', `#${game.player || 'You'}`, '#Distance', '#Model', '#Distance', ...names.map((name) => `#${name}`)];
  const rows = game.results.map(({ answer }, i) => [
    String(i + 1), format.count(answer.you.score), format.distance(answer.you.distance_m), format.count(answer.model?.score), format.distance(answer.model?.distance_m),
    ...names.map((name) => format.count(answer.experts?.[name]?.score)),
  ]);
  rows.push(['Total', format.count(you), '', format.count(model), '', ...names.map((name) => format.count(experts[name]))]);
  const node = section(title, table('Points of every round', header, rows, { rowAttributes: (i) => ({ class: i === rows.length - 1 ? 'total' : '' }) }));
  node.id = 'running';
  return node;
}

/**
 * @param {Element} container
 * @param {import('./app.mjs').Context} context
 * @param {import('./play_game.mjs').Game} game
 * @param {() => void} again play the same rounds once more
 */
export async function finalScreen(container, context, game, again) {
  const { you, model, experts } = game.totals();
  const most = 5000 * game.rounds;
  const who = game.player || 'You';
  const title = h('h1', { tabindex: '-1' }, you > model ? `${who} won` : you === model ? 'A draw' : 'The model won');
  const frame = h('div');
  const one = (kind, name, points) => h('li', { class: kind }, h('strong', {}, format.count(points)), h('span', {}, `${name}, of ${format.count(most)}`));
  put(container, h('div', { class: 'lead' }, title, h('p', {}, game.describe())),
    h('ul', { class: 'scores', id: 'totals' }, one('you', who, you), one('model', 'Model', model), Object.entries(experts).map(([name, points]) => one('expert', name, points))),
    share(context, game, again),
    runningTable(game, 'Points'), h('section', { class: 'card', 'aria-label': 'Map of all rounds' }, frame),
    game.finished.length > 1 ? section('Played on this device', table('Results of this game on this device', ['Player', '#Points', '#Model', 'On'],
      [...game.finished].sort((a, b) => b.total - a.total).map((played) => [played.player || 'You', format.count(played.total), format.count(played.model), format.date(played.on)]))) : null);
  title.focus({ preventScroll: true });
  scrollTo(0, 0);
  context.say(`${title.textContent}: ${format.count(you)} to ${format.count(model)} points`);
  await drawAll(frame, context, game);
}

function share(context, game, again) {
  const link = h('input', { readonly: true, value: game.link, id: 'game-link', on: { focus: (event) => event.target.select() } });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(game.link);
      context.say('The link is in the clipboard');
      button.textContent = 'Copied';
    } catch {
      link.focus(); // without a secure connection the clipboard is closed: the selected link can be copied by hand
    }
  };
  const button = h('button', { type: 'button', class: 'quiet', on: { click: copy } }, 'Copy link');
  return section('Once more?', h('div', { class: 'share' },
    h('button', { type: 'button', id: 'again', on: { click: again } }, 'Play again with the same seed'),
    h('a', { class: 'button', href: '#play' }, 'New game'),
    h('label', { class: 'field' }, h('span', {}, 'Link to the same rounds for somebody else'), link), button));
}

async function drawAll(frame, context, game) {
  const { region, signal } = context;
  const map = await createMap(frame, region, { label: `Map of ${region.name} with all rounds`, signal });
  const lines = game.results.flatMap(({ guess, answer: { truth, model } }) => [
    line([[guess.lat_deg, guess.lng_deg], [truth.lat_deg, truth.lng_deg]], { of: 'you' }),
    ...(Number.isFinite(model?.lat_deg) ? [line([[model.lat_deg, model.lng_deg], [truth.lat_deg, truth.lng_deg]], { of: 'model' })] : []),
  ]);
  map.setLayer({ id: 'reveal', kind: 'line', width: 2, colour: { by: 'of', values: { you: '--you' }, other: '--model' }, data: collection(lines) });
  map.setMarkers(game.results.flatMap(({ guess, answer: { truth, model } }, i) => [
    { id: `y${i}`, kind: 'you', lat: guess.lat_deg, lng: guess.lng_deg, title: `Guess of round ${i + 1}` },
    ...(Number.isFinite(model?.lat_deg) ? [{ id: `m${i}`, kind: 'model', lat: model.lat_deg, lng: model.lng_deg, title: `Model in round ${i + 1}` }] : []),
    { id: `t${i}`, kind: 'truth', lat: truth.lat_deg, lng: truth.lng_deg, title: `True position of round ${i + 1}` },
  ]));
  map.setLegend('', [{ marker: 'truth', text: 'true positions' }, { marker: 'you', text: game.player || 'you' }, { marker: 'model', text: 'model' }]);
  map.fitTo(game.results.flatMap(({ guess, answer: { truth } }) => [[guess.lat_deg, guess.lng_deg], [truth.lat_deg, truth.lng_deg]]), [], 800);
}
