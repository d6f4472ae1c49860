/** Data: the asset behind everything that is shown, with where its runs can be looked at. */

import * as api from './api.mjs';
import { h, section, table } from './dom.mjs';
import * as format from './format.mjs';

/** @param {Element} container @param {import('./app.mjs').Context} context */
export async function mount(container, context) {
  const lineage = await api.get('/lineage', { signal: context.signal });
  const { assets, trainings = [], dagster_url: dagster, mlflow_url: mlflow } = lineage;
  container.append(
    h('div', { class: 'lead' }, h('h1', {}, 'Where it comes from'), h('p', {}, 'Every figure and picture here is read from one of these assets, in the order in which they are made.')),
    h('p', {}, dagster ? [link(dagster, 'Dagster'), mlflow ? [' · ', link(mlflow, 'MLflow')] : null] : 'No address of Dagster is configured (explorer.dagster_url), so that assets are named without links.'),
    section('Assets', table('Assets in the order in which they are made', ['Asset', 'Group', 'Shows', 'Kind', '#Rows', '#Size', 'Updated', 'Path', 'Runs'],
      assets.map(row), { rowAttributes: (i) => ({ class: assets[i].asset.split('/').at(-1) === context.argument ? 'selected' : '', id: `asset-${i}` }) })),
    trainings.length ? section('Trainings', table('Finished trainings, the newest first', ['Recipe', 'Model', '#Rows', 'Finished', 'Run'], trainings.map((one) => [
      one.recipe, h('code', {}, one.model_version), format.count(one.rows), format.moment(one.finished_at),
      one.mlflow_url ? link(one.mlflow_url, 'MLflow') : one.mlflow_run_id ? h('code', {}, one.mlflow_run_id) : '–',
    ]))) : '');
  container.querySelector('tr.selected')?.scrollIntoView({ block: 'center' });
}

function row(one) {
  const runs = [one.dagster_url && link(one.dagster_url, 'Dagster'), one.mlflow_url && link(one.mlflow_url, 'MLflow')].filter(Boolean);
  const made = one.updated_at || one.bytes;
  return [h('code', {}, one.asset), one.group, one.note || '–', one.kind, format.count(one.rows), format.bytes(one.bytes),
    made ? format.moment(one.updated_at) : 'not made yet', h('code', {}, one.path), runs.length ? runs.flatMap((each, i) => (i ? [' · ', each] : [each])) : '–'];
}

function link(url, text) {
  const safe = /^https?:/.test(url) ? url : '';
  return h('a', { href: safe, rel: 'noopener noreferrer' }, text);
}
