/**
 * The map beside every table: MapLibre where there is WebGL, the same geometry as a plain SVG picture where there is none.
 *
 * Both take the same layers, so that no view knows which of them it has:
 * @typedef {object} Layer
 * @property {string} id
 * @property {'fill'|'line'|'circle'} kind
 * @property {any} [data] GeoJSON
 * @property {{url: string, layer: string}} [tiles] vector tiles in place of data
 * @property {any[]} [filter] MapLibre expression, of tiles only
 * @property {Colour} colour
 * @property {number} [opacity]
 * @property {number} [width] of lines, pixels
 * @property {number[]} [dash] of lines
 * @property {number} [radius] of circles, pixels
 * @property {boolean} [far] shown only where the map shows more than a city
 * @property {(properties: any, at: {lat: number, lng: number}) => void} [onSelect]
 *
 * A colour is a name such as `--truth`; `{by, values, other}`: a name per value of a property; or `{by, steps, other}`: names from
 * the least value up, with `year: true` of the year that a date begins with.
 * @typedef {string | {by: string, values?: Record<string, string>, steps?: [number, string][], year?: boolean, other: string}} Colour
 *
 * A marker is an HTML element at a position.
 * @typedef {{id: string, lat: number, lng: number, kind: string, title: string, text?: string, onSelect?: () => void}} Marker
 */

import { baseLayers, credit, districtLabels, isFar } from './basemap.mjs';
import { h, put } from './dom.mjs';
import { boundsOf } from './geo.mjs';
import { markerElement } from './markers.mjs';

/**
 * Put a map of the region into an element.
 * @param {Element} container
 * @param {any} region the answer of `GET /region`
 * @param {{label: string, signal: AbortSignal, onClick?: (at: {lat: number, lng: number}) => void}} options
 * @returns {Promise<MapPanel>}
 */
export async function createMap(container, region, { label, signal, onClick }) {
  const canvas = h('div', { class: 'map-canvas' });
  const legend = h('div', { class: 'map-legend', hidden: true });
  container.append(h('div', { class: 'map-frame' }, canvas), legend, h('p', { class: 'map-credit' }, credit(region)));
  const options = { label, onClick, region, bounds: region.bounds };
  const view = (await webglMap(canvas, options)) ?? (await svgMap(canvas, options));
  const panel = new MapPanel(view, region, canvas, legend);
  signal.addEventListener('abort', () => panel.destroy());
  await panel.addBase();
  return panel;
}

/** A map with its legend; what the views use. */
export class MapPanel {
  #view;
  #region;
  #legend;
  #canvas;
  #markers = new Map();
  #repaint = () => this.#view.repaint();
  #hasFar = false;

  constructor(view, region, canvas, legend) {
    this.#view = view;
    this.#region = region;
    this.#canvas = canvas;
    this.#legend = legend;
    document.addEventListener('themechange', this.#repaint);
    view.onMove(() => this.#addFarWhenNeeded());
  }

  /** The element that takes the keys. @returns {HTMLElement} */
  get element() { return this.#view.element; }

  /** Whether this is the picture in place of the map. */
  get isPicture() { return this.#view.isPicture; }

  /** Land, borders, the region and its districts. */
  async addBase() {
    for (const layer of await baseLayers(this.#region, { far: false })) this.#view.setLayer(layer);
    this.#view.setLabels(districtLabels(this.#region));
    await this.#addFarWhenNeeded();
  }

  /** Add a layer, or replace the one with its id. @param {Layer} layer */
  setLayer(layer) { this.#view.setLayer(layer); }

  /** @param {string} id */
  removeLayer(id) { this.#view.removeLayer(id); }

  /** @param {string} id @param {boolean} visible */
  show(id, visible) { this.#view.show(id, visible); }

  /** Replace all markers. @param {Marker[]} markers */
  setMarkers(markers) {
    const wanted = new Set(markers.map(({ id }) => id));
    for (const [id, handle] of this.#markers) if (!wanted.has(id)) { handle.remove(); this.#markers.delete(id); }
    for (const marker of markers) {
      this.#markers.get(marker.id)?.remove();
      this.#markers.set(marker.id, this.#view.addMarker(marker.lat, marker.lng, markerElement(marker)));
    }
  }

  /** Show a box. @param {[number, number, number, number]|null} bounds west, south, east, north; the region where null */
  fit(bounds) { this.#view.fit(bounds ?? this.#region.bounds); }

  /** Show points and geometries with room around them. */
  fitTo(points, geometries = [], leastM = 400) { this.fit(boundsOf(points, geometries, leastM)); }

  /** @returns {{lat: number, lng: number}} the middle of what is shown */
  centre() { return this.#view.centre(); }

  /** A position some pixels away. @param {{lat: number, lng: number}} at @param {number} dx @param {number} dy */
  shifted(at, dx, dy) {
    const { x, y } = this.#view.project(at.lat, at.lng);
    return this.#view.unproject(x + dx, y + dy);
  }

  /** Move the map where a position has left it. @param {{lat: number, lng: number}} at */
  keepInView(at) {
    const { x, y } = this.#view.project(at.lat, at.lng);
    const { clientWidth, clientHeight } = this.#canvas;
    if (x < 20 || y < 20 || x > clientWidth - 20 || y > clientHeight - 20) this.#view.centreOn(at);
  }

  /** Zoom in or out by steps. @param {number} steps */
  zoom(steps) { this.#view.zoom(steps); }

  /** Leave the arrow keys to the view that uses the map. */
  releaseArrowKeys() { this.#view.releaseArrowKeys(); }

  /**
   * Say what colours and shapes mean; hidden where there is nothing to say.
   * @param {string} title with the unit
   * @param {{colour?: string, line?: string, marker?: string, text: string}[]} entries
   */
  setLegend(title, entries) {
    this.#legend.hidden = entries.length === 0;
    put(this.#legend, title ? h('strong', {}, title) : null, h('ul', {}, entries.map(({ colour, line, marker, text }) =>
      h('li', {}, marker ? markerElement({ kind: marker, title: '', decoration: true })
        : line ? h('span', { class: 'swatch-line', css: { 'border-color': `var(${line})` } })
          : h('span', { class: 'swatch', css: { background: `var(${colour})` } }), text))));
  }

  destroy() {
    document.removeEventListener('themechange', this.#repaint);
    this.#view.destroy();
  }

  async #addFarWhenNeeded() {
    if (this.#hasFar || !isFar(this.#view.span())) return;
    this.#hasFar = true;
    for (const layer of await baseLayers(this.#region, { far: true })) this.#view.setLayer(layer, 'bottom');
  }
}

async function webglMap(canvas, options) {
  if (!hasWebgl()) return null;
  const { WebglMap } = await import('./map_webgl.mjs');
  try {
    return await WebglMap.open(canvas, options);
  } catch (error) {
    console.warn('The map falls back to a picture:', error);
    put(canvas);
    return null;
  }
}

async function svgMap(canvas, options) {
  const { SvgMap } = await import('./map_svg.mjs');
  return new SvgMap(canvas, options);
}

function hasWebgl() {
  try {
    const context = document.createElement('canvas').getContext('webgl2');
    context?.getExtension('WEBGL_lose_context')?.loseContext();
    return Boolean(context);
  } catch {
    return false;
  }
}
