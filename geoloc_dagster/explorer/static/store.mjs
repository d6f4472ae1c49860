/** What the browser keeps on this device (colours, own games); nothing of it is sent, and all works where storage is forbidden. */

/** @param {string} key @returns {string|null} */
export function read(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

/** @param {string} key @param {string} value */
export function write(key, value) {
  try { localStorage.setItem(key, value); } catch { /* kept for this page only */ }
}

/** @param {string} key @returns {any} the parsed value, or null where there is none or it cannot be read */
export function readJson(key) {
  try { return JSON.parse(read(key) ?? 'null'); } catch { return null; }
}

/** @param {string} key @param {any} value */
export function writeJson(key, value) {
  write(key, JSON.stringify(value));
}
