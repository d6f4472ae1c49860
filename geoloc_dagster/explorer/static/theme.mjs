/** Light and dark: the system's choice until the reader makes another; maps and charts are told by the event `themechange`. */

import * as store from './store.mjs';

const KEY = 'geoloc-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

/** @returns {'light'|'dark'} */
export function theme() {
  return document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light';
}

/**
 * Let a button switch between light and dark, and follow the system while nobody has switched.
 * @param {HTMLButtonElement} button
 */
export function installToggle(button) {
  const show = () => {
    const next = theme() === 'dark' ? 'light' : 'dark';
    button.textContent = next === 'dark' ? 'Dark' : 'Light';
    button.setAttribute('aria-label', `Switch to the ${next} colours`);
  };
  button.addEventListener('click', () => {
    const next = theme() === 'dark' ? 'light' : 'dark';
    store.write(KEY, next);
    apply(next);
    show();
  });
  system.addEventListener('change', () => {
    if (store.read(KEY) === null) apply(system.matches ? 'dark' : 'light');
    show();
  });
  show();
}

/**
 * The colour behind a name such as `--truth`, as maps want it.
 * @param {string} token
 * @returns {string} rgb() or rgba()
 */
export function colour(token) {
  const probe = document.getElementById('status');
  probe.style.color = `var(${token})`;
  const value = getComputedStyle(probe).color;
  probe.style.color = '';
  return value;
}

function apply(next) {
  document.documentElement.dataset.theme = next;
  document.dispatchEvent(new CustomEvent('themechange'));
}
