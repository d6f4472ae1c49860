/** What the explorer's API is asked; every failure is an `ApiError` that can be shown. */

/** A problem as the API states it (application/problem+json), or that it could not be reached. */
export class ApiError extends Error {
  /** @param {string} title @param {string} detail @param {number} status HTTP, 0 where nothing answered */
  constructor(title, detail, status) {
    super(`${title}: ${detail}`);
    Object.assign(this, { title, detail, status });
  }
}

/**
 * @param {string} path
 * @param {{query?: Record<string, any>, signal?: AbortSignal}} [options] empty values of `query` are left out
 * @returns {Promise<any>}
 */
export async function get(path, { query = {}, signal } = {}) {
  return (await send(address(path, query), { signal })).json();
}

/** @param {string} path @param {any} body @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function post(path, body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  return (await send(address(path, {}), { method: 'POST', headers, body: JSON.stringify(body), signal })).json();
}

/**
 * Ask about photos; answers come as they are ready, in order.
 * @param {File[]} photos
 * @param {{coverage: number, heat?: boolean, top?: number}} options
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<any>} one answer, or `{photo, error}`, per photo
 */
export async function* predict(photos, { coverage, heat = true, top = 10 }, signal) {
  const body = new FormData();
  for (const photo of photos) body.append('photos', photo, photo.name || 'photo');
  const headers = { Accept: 'application/x-ndjson' };
  const url = address('/predict', { coverage, heat: heat ? 1 : 0, top });
  const response = await send(url, { method: 'POST', headers, body, signal });
  if ((response.headers.get('Content-Type') ?? '').includes('ndjson')) yield* lines(response);
  else yield* (await response.json()).answers;
}

function address(path, query) {
  const wanted = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const below = path.replace(/^\//, ''); // the page may be served below a path of another server
  return wanted.length ? `${below}?${new URLSearchParams(wanted)}` : below;
}

async function send(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('The explorer does not answer', 'It may have been stopped, or the connection is gone. Try again.', 0);
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  try {
    const { title, detail } = await response.json();
    return new ApiError(String(title ?? 'The explorer refused'), typeof detail === 'string' ? detail : '', response.status);
  } catch {
    return new ApiError('The explorer refused', `It answered with status ${response.status}.`, response.status);
  }
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    const parts = (rest + (value ?? '')).split('\n');
    rest = done ? '' : parts.pop();
    for (const part of parts) if (part.trim()) yield JSON.parse(part);
    if (done) return;
  }
}
