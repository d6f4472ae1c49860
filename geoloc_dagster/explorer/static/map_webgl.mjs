/** The map in WebGL, by MapLibre; see `map.mjs` for what layers and markers are. */

import { h } from './dom.mjs';
import { fitting, labelElement } from './markers.mjs';
import { colour as resolve } from './theme.mjs';
import * as maplibregl from './vendor/maplibre-gl/maplibre-gl.mjs';

maplibregl.setWorkerUrl(new URL('./vendor/maplibre-gl/maplibre-gl-worker.mjs', import.meta.url).href);

const PAINT = {
  fill: (layer) => ({ 'fill-color': expression(layer.colour), 'fill-opacity': layer.opacity ?? 1, 'fill-antialias': layer.opacity === undefined }),
  line: (layer) => ({
    'line-color': expression(layer.colour), 'line-width': layer.width ?? 1, 'line-opacity': layer.opacity ?? 1,
    ...(layer.dash ? { 'line-dasharray': layer.dash } : {}),
  }),
  circle: (layer) => ({
    'circle-color': expression(layer.colour), 'circle-opacity': layer.opacity ?? 1, 'circle-radius': layer.radius ?? 4,
    'circle-stroke-width': layer.radius > 2.5 ? 1 : 0, 'circle-stroke-color': resolve('--map-halo'),
  }),
};

export class WebglMap {
  isPicture = false;
  #map;
  #layers = new Map();
  #labels = [];

  /** @returns {Promise<WebglMap>} once the map can take layers */
  static async open(container, { label, onClick, region, bounds }) {
    const touch = matchMedia('(pointer: coarse)').matches;
    const map = new maplibregl.Map({
      container, bounds, fitBoundsOptions: { padding: 16 }, attributionControl: false, renderWorldCopies: false,
      dragRotate: false, pitchWithRotate: false, maxPitch: 0, touchPitch: false, cooperativeGestures: touch, fadeDuration: 0,
      style: style(region), locale: { 'Map.Title': label },
    });
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    map.addControl(new maplibregl.NavigationControl({ showCompass: false }), 'top-right');
    map.addControl(new maplibregl.ScaleControl({ maxWidth: 120, unit: 'metric' }), 'bottom-left');
    await new Promise((done, refuse) => { map.once('load', done); map.once('error', ({ error }) => refuse(error)); });
    map.on('error', ({ error }) => console.error('map:', error?.message ?? error));
    return new WebglMap(map, onClick);
  }

  constructor(map, onClick) {
    this.#map = map;
    map.getCanvas().setAttribute('role', 'application');
    map.on('click', (event) => {
      if (this.#selectAt(event)) return;
      onClick?.({ lat: event.lngLat.lat, lng: event.lngLat.lng });
    });
    map.on('mousemove', (event) => {
      map.getCanvas().style.cursor = onClick ? 'crosshair' : this.#hit(event.point) ? 'pointer' : '';
    });
    map.on('moveend', () => this.#placeLabels());
  }

  get element() { return this.#map.getCanvas(); }

  setLayer(layer, where = 'top') {
    const known = this.#layers.get(layer.id);
    this.#layers.set(layer.id, layer);
    if (known && layer.data) {
      this.#map.getSource(layer.id).setData(layer.data);
      this.#paint(layer);
      return;
    }
    if (known) this.#drop(layer.id);
    this.#map.addSource(layer.id, layer.tiles
      ? { type: 'vector', tiles: [new URL('.', document.baseURI).href + layer.tiles.url], maxzoom: 16 }
      : { type: 'geojson', data: layer.data });
    this.#map.addLayer({
      id: layer.id, type: layer.kind, source: layer.id, paint: PAINT[layer.kind](layer),
      ...(layer.tiles ? { 'source-layer': layer.tiles.layer } : {}),
      ...(layer.filter ? { filter: layer.filter } : {}),
      ...(layer.far ? { maxzoom: 8 } : {}),
    }, where === 'bottom' ? 'region' : undefined);
  }

  removeLayer(id) {
    if (!this.#layers.has(id)) return;
    this.#layers.delete(id);
    this.#drop(id);
  }

  show(id, visible) {
    if (this.#layers.has(id)) this.#map.setLayoutProperty(id, 'visibility', visible ? 'visible' : 'none');
  }

  addMarker(lat, lng, element) {
    const holder = h('div', { class: 'marker-holder' }, element);
    const marker = new maplibregl.Marker({ element: holder, anchor: element.classList.contains('marker-you') ? 'bottom' : 'center' })
      .setLngLat([lng, lat]).addTo(this.#map);
    for (const name of ['role', 'aria-label', 'tabindex']) holder.removeAttribute(name);
    return marker;
  }

  setLabels(labels) {
    for (const { marker } of this.#labels) marker.remove();
    this.#labels = labels.map(({ text, lat, lng }) => {
      const element = labelElement(text);
      const marker = this.addMarker(lat, lng, element);
      return { lat, lng, element, marker };
    });
    this.#placeLabels();
  }

  fit([west, south, east, north]) {
    const animate = !matchMedia('(prefers-reduced-motion: reduce)').matches;
    this.#map.fitBounds([[west, south], [east, north]], { padding: 48, maxZoom: 17, duration: animate ? 500 : 0 });
  }

  centre() { return this.#map.getCenter(); }

  centreOn({ lat, lng }) { this.#map.jumpTo({ center: [lng, lat] }); }

  span() {
    const bounds = this.#map.getBounds();
    return bounds.getNorth() - bounds.getSouth();
  }

  project(lat, lng) { return this.#map.project([lng, lat]); }

  unproject(x, y) {
    const { lat, lng } = this.#map.unproject([x, y]);
    return { lat, lng };
  }

  zoom(steps) { this.#map.zoomTo(this.#map.getZoom() + steps, { duration: 0 }); }

  onMove(handler) { this.#map.on('moveend', handler); }

  releaseArrowKeys() { this.#map.keyboard.disable(); }

  repaint() {
    this.#map.setPaintProperty('background', 'background-color', resolve('--map-back'));
    for (const layer of this.#layers.values()) this.#paint(layer);
  }

  destroy() { this.#map.remove(); }

  #paint(layer) {
    for (const [name, value] of Object.entries(PAINT[layer.kind](layer))) this.#map.setPaintProperty(layer.id, name, value);
    if (layer.tiles) this.#map.setFilter(layer.id, layer.filter ?? null);
  }

  #drop(id) {
    this.#map.removeLayer(id);
    this.#map.removeSource(id);
  }

  #hit(point) {
    const ids = [...this.#layers.values()].filter(({ onSelect }) => onSelect).map(({ id }) => id);
    if (!ids.length) return null;
    const reach = 5;
    const box = [[point.x - reach, point.y - reach], [point.x + reach, point.y + reach]];
    return this.#map.queryRenderedFeatures(box, { layers: ids })[0] ?? null;
  }

  #selectAt({ point, lngLat }) {
    const found = this.#hit(point);
    if (found) this.#layers.get(found.layer.id).onSelect(found.properties, { lat: lngLat.lat, lng: lngLat.lng });
    return Boolean(found);
  }

  #placeLabels() {
    const boxes = this.#labels.map(({ lat, lng, element }) => {
      const { x, y } = this.project(lat, lng);
      return { x, y, width: element.offsetWidth, height: element.offsetHeight };
    });
    fitting(boxes).forEach((fits, i) => this.#labels[i].element.classList.toggle('crowded', !fits));
  }
}

function style(region) {
  const background = { id: 'background', type: 'background', paint: { 'background-color': resolve('--map-back') } };
  if (!region.tile_url) return { version: 8, sources: {}, layers: [background] };
  return {
    version: 8,
    sources: { tiles: { type: 'raster', tiles: [region.tile_url], tileSize: 256 } },
    layers: [background, { id: 'tiles', type: 'raster', source: 'tiles' }],
  };
}

function expression(colour) {
  if (typeof colour === 'string') return resolve(colour);
  const { by, values, steps, other, year } = colour;
  if (values) return ['match', ['to-string', ['get', by]], ...Object.entries(values).flatMap(([value, token]) => [value, resolve(token)]), resolve(other)];
  const [[, first], ...rest] = steps;
  const number = ['to-number', year ? ['slice', ['to-string', ['get', by]], 0, 4] : ['get', by], -1];
  return ['case', ['all', ['has', by], ['!=', ['get', by], null]],
    // MapLibre knows no steps without a second one; a layer of one class is still a layer.
    rest.length ? ['step', number, resolve(first), ...rest.flatMap(([value, token]) => [value, resolve(token)])] : resolve(first), resolve(other)];
}
