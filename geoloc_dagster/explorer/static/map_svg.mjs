/** The map as a plain SVG picture where there is no WebGL: the same layers and markers, an equirectangular local projection. */

import { h, put, s } from './dom.mjs';
import { boundsOf } from './geo.mjs';
import { fitting, labelElement } from './markers.mjs';
import { isFar } from './basemap.mjs';
import * as format from './format.mjs';

const METRES_PER_DEGREE = 111_195;
const MOST_SCALE = 2e6; // pixels per degree of latitude: about 5 cm each
const STEP_PX = 80;

export class SvgMap {
  isPicture = true;
  #container;
  #svg;
  #overlay;
  #scaleBar;
  #label;
  #layers = new Map();
  #hidden = new Set();
  #markers = new Set();
  #labels = [];
  #moved = [];
  #centre = { lat: 0, lng: 0 };
  #scale = 1;
  #arrowKeys = true;
  #onClick;
  #observer;
  #pending = 0;

  constructor(container, { label, onClick, bounds }) {
    this.#container = container;
    this.#label = label;
    this.#onClick = onClick;
    this.#svg = s('svg', { class: 'map-svg', role: 'img', tabindex: '0', 'aria-label': label });
    this.#overlay = h('div', { class: 'map-overlay' });
    this.#scaleBar = h('div', { class: 'map-scale' });
    put(container, this.#svg, this.#overlay, this.#scaleBar, this.#buttons());
    this.#listen();
    this.fit(bounds);
    this.#observer = new ResizeObserver(() => this.#draw());
    this.#observer.observe(container);
  }

  get element() { return this.#svg; }

  setLayer(layer, where = 'top') {
    if (layer.tiles) return; // tiles need WebGL; the table beside the map has the same rows
    const rest = [...this.#layers.values()].filter(({ id }) => id !== layer.id);
    if (this.#layers.has(layer.id)) this.#layers.set(layer.id, layer);
    else this.#layers = new Map((where === 'bottom' ? [layer, ...rest] : [...rest, layer]).map((one) => [one.id, one]));
    this.#draw();
  }

  removeLayer(id) {
    this.#layers.delete(id);
    this.#draw();
  }

  show(id, visible) {
    if (visible) this.#hidden.delete(id);
    else this.#hidden.add(id);
    this.#draw();
  }

  addMarker(lat, lng, element) {
    const holder = h('div', { class: 'marker-holder' }, element);
    const marker = { lat, lng, holder, bottom: element.classList.contains('marker-you') };
    this.#overlay.append(holder);
    this.#markers.add(marker);
    this.#place(marker);
    return { remove: () => { holder.remove(); this.#markers.delete(marker); } };
  }

  setLabels(labels) {
    for (const { handle } of this.#labels) handle.remove();
    this.#labels = labels.map(({ text, lat, lng }) => {
      const element = labelElement(text);
      return { lat, lng, element, handle: this.addMarker(lat, lng, element) };
    });
    this.#draw();
  }

  fit([west, south, east, north]) {
    this.#centre = { lat: (south + north) / 2, lng: (west + east) / 2 };
    const { width, height } = this.#size();
    const room = Math.max(0.6, 1 - 72 / Math.min(width, height));
    this.#scale = Math.min((height * room) / (north - south), (width * room) / ((east - west) * this.#squeeze()), MOST_SCALE);
    this.#move();
  }

  centre() { return this.#centre; }

  centreOn({ lat, lng }) {
    this.#centre = { lat, lng };
    this.#move();
  }

  span() { return this.#size().height / this.#scale; }

  project(lat, lng) {
    const { width, height } = this.#size();
    return {
      x: width / 2 + (lng - this.#centre.lng) * this.#squeeze() * this.#scale,
      y: height / 2 - (lat - this.#centre.lat) * this.#scale,
    };
  }

  unproject(x, y) {
    const { width, height } = this.#size();
    return {
      lat: this.#centre.lat - (y - height / 2) / this.#scale,
      lng: this.#centre.lng + (x - width / 2) / (this.#squeeze() * this.#scale),
    };
  }

  zoom(steps) {
    this.#scale = Math.min(MOST_SCALE, Math.max(2, this.#scale * 2 ** steps));
    this.#move();
  }

  onMove(handler) { this.#moved.push(handler); }

  releaseArrowKeys() { this.#arrowKeys = false; }

  repaint() { /* colours are CSS here and change by themselves */ }

  destroy() {
    this.#observer.disconnect();
    cancelAnimationFrame(this.#pending);
  }

  #buttons() {
    const button = (text, label, steps) => h('button', { type: 'button', 'aria-label': label, on: { click: () => this.zoom(steps) } }, text);
    return h('div', { class: 'map-buttons' }, button('+', 'Zoom in', 1), button('−', 'Zoom out', -1));
  }

  #listen() {
    let from = null;
    let dragged = false;
    this.#svg.addEventListener('pointerdown', (event) => {
      from = { x: event.clientX, y: event.clientY };
      dragged = false;
    });
    this.#svg.addEventListener('pointermove', (event) => {
      if (!from || !event.buttons) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (!dragged && Math.hypot(dx, dy) < 5) return;
      dragged = true;
      from = { x: event.clientX, y: event.clientY };
      this.#pan(-dx, -dy);
    });
    this.#svg.addEventListener('click', (event) => {
      from = null;
      if (!dragged) this.#clicked(event);
    });
    this.#svg.addEventListener('keydown', (event) => this.#pressed(event));
  }

  #clicked(event) {
    const box = this.#svg.getBoundingClientRect();
    const at = this.unproject(event.clientX - box.left, event.clientY - box.top);
    const id = event.target.closest('[data-layer]')?.dataset.layer;
    const layer = this.#layers.get(id);
    if (layer?.onSelect) layer.onSelect(layer.data.features[Number(event.target.dataset.feature)].properties, at);
    else this.#onClick?.(at);
  }

  #pressed(event) {
    const moves = { ArrowLeft: [-STEP_PX, 0], ArrowRight: [STEP_PX, 0], ArrowUp: [0, -STEP_PX], ArrowDown: [0, STEP_PX] };
    if (this.#arrowKeys && moves[event.key]) this.#pan(...moves[event.key]);
    else if (this.#arrowKeys && (event.key === '+' || event.key === '=')) this.zoom(1);
    else if (this.#arrowKeys && event.key === '-') this.zoom(-1);
    else return;
    event.preventDefault();
  }

  #pan(dx, dy) {
    const { width, height } = this.#size();
    this.#centre = this.unproject(width / 2 + dx, height / 2 + dy);
    this.#move();
  }

  #move() {
    this.#draw();
    for (const handler of this.#moved) handler();
  }

  #size() {
    return { width: this.#container.clientWidth || 600, height: this.#container.clientHeight || 400 };
  }

  #squeeze() { return Math.max(0.05, Math.cos((this.#centre.lat * Math.PI) / 180)); }

  #draw() {
    cancelAnimationFrame(this.#pending);
    this.#pending = requestAnimationFrame(() => this.#drawNow());
  }

  #drawNow() {
    const { width, height } = this.#size();
    this.#svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const far = isFar(this.span());
    const shown = [...this.#layers.values()].filter((layer) => !this.#hidden.has(layer.id) && (far || !layer.far));
    put(this.#svg, s('title', {}, this.#label), shown.map((layer) => this.#drawLayer(layer)));
    for (const marker of this.#markers) this.#place(marker);
    const boxes = this.#labels.map(({ lat, lng, element }) => ({ ...this.project(lat, lng), width: element.offsetWidth, height: element.offsetHeight }));
    fitting(boxes).forEach((fits, i) => this.#labels[i].element.classList.toggle('crowded', !fits));
    this.#drawScale();
  }

  #drawLayer(layer) {
    const seen = this.#seen();
    const features = layer.data.features.map((one, i) => [one, i]).filter(([one]) => touches(one, seen));
    const draw = layer.kind === 'circle' ? this.#circle : this.#path;
    return s('g', { 'data-layer': layer.id, class: layer.onSelect ? 'selectable' : '' }, features.map(([one, i]) => draw.call(this, layer, one, i)));
  }

  #circle(layer, { geometry, properties }, i) {
    const [lng, lat] = geometry.coordinates;
    const { x, y } = this.project(lat, lng);
    const css = { fill: `var(${value(layer.colour, properties)})`, stroke: 'var(--map-halo)', 'stroke-width': layer.radius > 2.5 ? '1' : '0' };
    return s('circle', { cx: x.toFixed(1), cy: y.toFixed(1), r: layer.radius ?? 4, css, 'fill-opacity': layer.opacity ?? 1, 'data-layer': layer.id, 'data-feature': i });
  }

  #path(layer, { geometry, properties }, i) {
    const paint = `var(${value(layer.colour, properties)})`;
    const css = layer.kind === 'fill' ? { fill: paint } : { fill: 'none', stroke: paint, 'stroke-width': String(layer.width ?? 1) };
    return s('path', {
      d: this.#outline(geometry), css, opacity: layer.opacity ?? 1, 'fill-rule': 'evenodd', 'data-layer': layer.id, 'data-feature': i,
      'stroke-dasharray': layer.dash ? layer.dash.map((part) => part * (layer.width ?? 1)).join(' ') : null,
    });
  }

  #outline(geometry) {
    if (!geometry) return '';
    if (geometry.type === 'GeometryCollection') return geometry.geometries.map((part) => this.#outline(part)).join('');
    const closed = geometry.type.endsWith('Polygon');
    const parts = [];
    const walk = (coordinates) => {
      if (typeof coordinates[0]?.[0] !== 'number') { coordinates.forEach(walk); return; }
      const text = coordinates.map(([lng, lat]) => { const { x, y } = this.project(lat, lng); return `${x.toFixed(1)} ${y.toFixed(1)}`; });
      parts.push(`M${text.join('L')}${closed ? 'Z' : ''}`);
    };
    walk(geometry.coordinates);
    return parts.join('');
  }

  #seen() {
    const { width, height } = this.#size();
    const [a, b] = [this.unproject(-20, height + 20), this.unproject(width + 20, -20)];
    return [a.lng, a.lat, b.lng, b.lat];
  }

  #place({ lat, lng, holder, bottom }) {
    const { x, y } = this.project(lat, lng);
    holder.style.transform = `translate(${x}px, ${y}px) translate(-50%, ${bottom ? '-100%' : '-50%'})`;
  }

  #drawScale() {
    const metresPerPixel = METRES_PER_DEGREE / this.#scale;
    const most = metresPerPixel * 110;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((digit) => digit * power).find((metres) => metres <= most);
    this.#scaleBar.style.width = `${length / metresPerPixel}px`;
    this.#scaleBar.textContent = length >= 1000 ? `${length / 1000} km` : format.distance(length);
  }
}

const boxes = new WeakMap();

function touches(feature, [west, south, east, north]) {
  if (!feature.geometry) return false;
  if (!boxes.has(feature)) boxes.set(feature, boundsOf([], [feature.geometry], 0));
  const box = boxes.get(feature);
  return Boolean(box) && box[0] <= east && box[2] >= west && box[1] <= north && box[3] >= south;
}

function value(colour, properties) {
  if (typeof colour === 'string') return colour;
  const found = properties?.[colour.by];
  if (colour.values) return colour.values[found] ?? colour.other;
  if (found === null || found === undefined) return colour.other;
  const number = Number(colour.year ? String(found).slice(0, 4) : found);
  return colour.steps.reduce((token, [least, next]) => (number >= least ? next : token), colour.steps[0][1]);
}
