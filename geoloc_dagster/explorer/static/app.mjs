/** The frame of the explorer: which view is shown, and what all of them share. */

import * as api from './api.mjs';
import { h, put } from './dom.mjs';
import { installToggle } from './theme.mjs';

const VIEWS = {
  ask: { title: 'Ask', load: () => import('./ask.mjs') },
  play: { title: 'Play', load: () => import('./play.mjs') },
  coverage: { title: 'Coverage', load: () => import('./coverage.mjs') },
  quality: { title: 'Quality', load: () => import('./quality.mjs') },
  data: { title: 'Data', load: () => import('./data.mjs') },
};
const main = document.getElementById('main');
const status = document.getElementById('status');

/**
 * What a view gets when it is shown.
 * @typedef {object} Context
 * @property {any} region the answer of `GET /region`
 * @property {string} argument what stands behind the view's name in the address
 * @property {AbortSignal} signal aborted when the view is left
 * @property {(text: string) => void} say announce to those who listen instead of look
 * @property {(node: Element, error: any) => void} fail show an error in an element
 */

let leave = new AbortController();
let region = null;

async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  const [name, ...rest] = location.hash.replace(/^#/, '').split('/');
  const view = VIEWS[name] ? name : 'ask';
  for (const link of document.querySelectorAll('[data-view]')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  put(main, h('p', { class: 'busy' }, 'Loading …'));
  main.dataset.view = view;
  try {
    region ??= await loadRegion();
    document.title = `${VIEWS[view].title} · ${region.name}`;
    const { mount } = await VIEWS[view].load();
    if (signal.aborted) return;
    put(main);
    await mount(main, { region, argument: decode(rest.join('/')), signal, say, fail });
  } catch (error) {
    if (!signal.aborted && error.name !== 'AbortError') fail(put(main), error);
  }
}

async function loadRegion() {
  const found = await api.get('/region');
  document.getElementById('region-name').textContent = found.name;
  document.getElementById('release-note').textContent = found.release
    ? `release ${found.release.id}`
    : 'no release yet';
  return found;
}

function say(text) {
  status.textContent = text;
}

function fail(node, error) {
  if (error.name === 'AbortError') return;
  if (!(error instanceof api.ApiError)) console.error(error);
  const [title, detail] = error instanceof api.ApiError
    ? [error.title, error.detail]
    : ['This part of the page failed', String(error.message ?? error)];
  node.append(h('div', { class: 'problem', role: 'alert' }, h('strong', {}, title), h('p', {}, detail)));
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

installToggle(document.getElementById('theme-toggle'));
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => {
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  show();
});
show();
