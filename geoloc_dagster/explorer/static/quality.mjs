/** Quality: how often answers are right, where they are not, and which of two models is better. */

import * as api from './api.mjs';
import { Atlas } from './atlas.mjs';
import { Compare } from './compare.mjs';
import { choice, field, h, notice, put, section, select, table } from './dom.mjs';
import * as format from './format.mjs';

/** @param {Element} container @param {import('./app.mjs').Context} context */
export async function mount(container, context) {
  const { region, signal } = context;
  container.append(h('div', { class: 'lead' }, h('h1', {}, 'How good it is'), h('p', {}, 'Measured on places that no model was trained on; intervals are 95 %.')));
  if (region.has.quality !== true) {
    container.append(notice(String(region.has.quality || 'No model has been evaluated yet.')));
    return;
  }
  const quality = await api.get('/quality', { signal });
  if (quality.fusion) container.append(fusionCard(quality.fusion));
  container.append(modelsCard(quality.models));
  const atlas = new Atlas(context, quality);
  container.append(atlas.element);
  if (quality.models.length) container.append(hitsCard(context, quality.models));
  if (quality.models.length > 1) container.append(new Compare(context, quality.models).element);
  container.append(picturesCard(quality));
  await atlas.open();
}

function assetLink(asset) {
  return h('a', { href: `#data/${asset}` }, `asset ${asset}`);
}

function fusionCard({ headline, experts, ece, coverage, n_queries: n }) {
  const names = [...new Set([...headline, ...experts.flatMap(({ figures }) => figures)].map(({ name }) => name))];
  const row = (name, figures) => [name, ...names.map((wanted) => { const one = figures.find((each) => each.name === wanted); return one ? format.figure(one) : '–'; })];
  const rows = experts.map(({ name, figures }) => row(name === 'fusion' ? 'all together' : name, figures));
  if (!experts.some(({ name }) => name === 'fusion')) rows.unshift(row('all together', headline));
  const held = coverage && `Of the regions asked to hold ${format.percent(coverage.asked)}, ${format.percent(coverage.held, 1)} did (${format.percent(coverage.low, 1)} to ${format.percent(coverage.high, 1)}).`;
  const calibrated = Number.isFinite(ece) ? `Said and true probabilities differ by ${format.percent(ece, 1)} on average (expected calibration error).` : '';
  return section('What answers', h('p', {}, [n && `${format.count(n)} questions.`, held, calibrated].filter(Boolean).join(' ')),
    table('Figures of the fusion and of each expert alone', ['Who', ...names.map((name) => `#${name}`)], rows),
    h('p', { class: 'muted small' }, 'Made by the ', assetLink('fusion'), '.'));
}

function modelsCard(models) {
  if (!models.length) return section('Models', notice('No model has been evaluated yet.'));
  const rows = models.map((one) => [
    h('span', {}, one.recipe, ' ', h('code', {}, one.model_version), one.champion ? [' ', h('span', { class: 'tag' }, 'champion')] : null),
    one.kind, `${format.count(one.n_queries)}${one.split ? ` (${one.split})` : ''}`, one.headline.length ? h('ul', { class: 'lines' }, one.headline.map((each) => h('li', {}, h('span', { class: 'muted' }, `${each.name} `), format.figure(each)))) : '–',
    format.moment(one.evaluated_at),
  ]);
  return section('Models', table('Evaluated models', ['Recipe and model', 'Kind', '#Queries', 'Figures', 'Evaluated'], rows),
    h('p', { class: 'muted small' }, 'Made by the ', assetLink('evaluations'), '.'));
}

function hitsCard(context, models) {
  const state = { model: models[0], hits: '0' };
  const shown = h('div');
  const load = async () => {
    put(shown, h('p', { class: 'busy' }, 'Loading …'));
    try {
      const { recipe, model_version: version } = state.model;
      const { queries } = await api.get(`/quality/${encodeURIComponent(recipe)}/${encodeURIComponent(version)}/queries`, { query: { hits: state.hits, n: 24 }, signal: context.signal });
      put(shown, queries.length ? h('ul', { class: 'pairs' }, queries.map(pair)) : notice(state.hits === '1' ? 'Nothing was found.' : 'Nothing was missed.'));
    } catch (error) {
      context.fail(put(shown), error);
    }
  };
  load();
  return section('Hits and misses', h('div', { class: 'controls' },
    field('Model', modelSelect(models, state.model, (one) => { state.model = one; load(); })),
    choice('Show', 'hits', [['0', 'Misses'], ['1', 'Hits']], '0', (value) => { state.hits = value; load(); })), shown);
}

function pair({ capture_id: id, url, hit, distance_m: off, found_url: found, captured_on: day }) {
  const image = (src, alt, text) => h('figure', { class: 'picture' }, h('img', { src, alt, loading: 'lazy', width: 224, height: 224 }), h('figcaption', {}, text));
  const asked = day === null || day === undefined ? 'asked' : `asked, ${format.date(day)}`;
  return h('li', { class: 'pair' }, h('p', { class: 'small' }, h('strong', {}, hit ? 'Hit' : 'Miss'), Number.isFinite(off) ? `, ${format.distance(off)} away` : ''),
    h('div', {}, image(url, `Query ${id}`, asked), found ? image(found, 'The picture found first', 'found first') : h('p', { class: 'muted small' }, 'answered by a position, not by a picture')));
}

/** A list of models. @param {any[]} models @param {any} chosen @param {(model: any) => void} onChange */
export function modelSelect(models, chosen, onChange) {
  const options = models.map((one) => [one.model_version, `${one.recipe} · ${one.model_version}${one.champion ? ' (champion)' : ''}`]);
  return select(options, chosen.model_version, (value) => onChange(models.find((one) => one.model_version === value)));
}

function picturesCard({ fusion, models }) {
  const groups = [...(fusion ? [['All experts together', fusion.pictures ?? []]] : []), ...models.map((one) => [`${one.recipe} · ${one.model_version}`, one.pictures ?? []])].filter(([, found]) => found.length);
  if (!groups.length) return null;
  return section('Pictures of the evaluations', groups.map(([title, pictures], i) => h('details', { open: i === 0 }, h('summary', {}, title),
    h('div', { class: 'gallery' }, pictures.map((one) => h('figure', {}, h('a', { href: one.url, target: '_blank', rel: 'noopener' }, h('img', { src: one.url, alt: `${one.title}, ${title}`, loading: 'lazy' })), h('figcaption', {}, one.title)))))));
}
