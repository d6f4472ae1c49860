'use strict';
// The page: map, search, place panel, street view, title card, date strip, controls. `data-part` is for the style sheet only.

const TURN_MS = 300;
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const settings = JSON.parse(document.querySelector('[data-part="settings"]').textContent);
const RENAMED = settings.mishap === 'renamed_dom', BARE = settings.mishap === 'no_attributes';

function el(part, tag, attributes, ...children) {
  const node = document.createElement(tag);
  if (part) node.dataset.part = part;
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (!RENAMED || !['id', 'class', 'aria-label', 'jsaction', 'jslog'].includes(name)) node.setAttribute(name, value);
    else if (name !== 'jsaction') node.setAttribute(name, 'q' + (value.length * 7919 % 9973).toString(36));
  }
  node.append(...children.filter(child => child !== null));
  return node;
}
const ask = async path => (await fetch(path)).json();
const longDate = date => `${MONTHS[Number(date.slice(5)) - 1]} ${date.slice(0, 4)}`;
const shortDate = date => `${MONTHS[Number(date.slice(5)) - 1].slice(0, 3)} ${date.slice(0, 4)}`;
const round = value => Number(value.toFixed(2));
const turned = value => ((value % 360) + 360) % 360;

const scene = el('scene', 'div', {class: 'widget-scene', hidden: ''});
const map = el('map', 'canvas', {class: 'map-canvas'});
const input = el(null, 'input', {id: 'searchboxinput', name: 'q', autocomplete: 'off', placeholder: 'Search Emulated City Maps',
  onkeydown: event => { if (event.key === 'Enter') search(); }});
const omnibox = el('omnibox', 'div', {id: 'omnibox-container'},
  input, el(null, 'button', {id: 'searchbox-searchbutton', 'aria-label': 'Search', onclick: () => search()}));
omnibox.lastChild.innerHTML = '<svg width="20" height="20" viewBox="0 0 24 24" fill="none" stroke="#5f6368" stroke-width="2">' +
  '<circle cx="10" cy="10" r="6"/><path d="M15 15l6 6"/></svg>';
const over = el(null, 'div', {class: 'overlays'});
document.body.append(map, scene, omnibox, over);

let panorama = null, canvas = null, info = null, overlays = {};

function drawMap(target, lat, lng, zoom) {
  const context = target.getContext('2d');
  target.width = target.clientWidth; target.height = target.clientHeight;
  context.fillStyle = '#f2efe9';
  context.fillRect(0, 0, target.width, target.height);
  const seed = Math.floor(lat * 300) * 31 + Math.floor(lng * 300);
  const dice = k => { const x = Math.sin(seed + k * 12.9898) * 43758.5453; return x - Math.floor(x); };
  context.translate(target.width / 2, target.height / 2);
  context.rotate(dice(1) - .5);
  context.fillStyle = '#c8e6c0';
  context.fillRect((dice(2) - .7) * 900 * zoom, (dice(3) - .6) * 700 * zoom, 260 * zoom, 180 * zoom);
  for (const [colour, extra] of [['#d9d5cc', 3], ['#ffffff', 0]]) {
    context.strokeStyle = colour;
    for (let k = -14; k <= 14; k++) {
      const at = (k + dice(k) * .4) * 95 * zoom;
      context.lineWidth = (k % 5 ? 9 : 18) * zoom + extra;
      context.beginPath(); context.moveTo(-2500, at); context.lineTo(2500, at); context.stroke();
      context.beginPath(); context.moveTo(at, -2500); context.lineTo(at, 2500); context.stroke();
    }
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
}

// --- map and search ---------------------------------------------------------------------------------------------------
function sexagesimal(value, letters) {
  const total = Math.abs(value) * 3600, degrees = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60;
  return `${degrees}°${minutes}'${(total % 60).toFixed(1)}"${letters[value < 0 ? 1 : 0]}`;
}

async function search() {
  const match = input.value.match(/^\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*$/);
  if (!match) return;
  const [lat, lng] = [Number(match[1]), Number(match[2])];
  const found = await ask(`/maps/panorama?by=search&location=${lat},${lng}`);
  if (found.mishap === 'tab_crash') crash();
  const name = `${sexagesimal(lat, 'NS')} ${sexagesimal(lng, 'EW')}`;
  history.pushState(null, '', `/maps/place/${encodeURIComponent(name).replace(/%20/g, '+')}/@${lat},${lng},17z`);
  showPlace(lat, lng, name, found);
}

function showPlace(lat, lng, name, found) {
  over.replaceChildren();
  const seen = found.status === 'OK' && found.mishap !== 'no_street_view';
  over.append(el('panel', 'div', {role: 'main'},
    seen ? el('preview', 'button', {'aria-label': '', onclick: () => enter({location: `${lat},${lng}`, by: 'preview'})},
      el(null, 'img', {src: `/maps/thumb/${found.pano_id}.jpg`, alt: ''}), el(null, 'span', {}, 'Street View')) : null,
    el(null, 'h1', {}, name), el(null, 'p', {}, `${lat.toFixed(6)}, ${lng.toFixed(6)}`),
    seen ? el(null, 'p', {}, found.address) : null));
  drawMap(map, lat, lng, 1);
}

// --- street view ------------------------------------------------------------------------------------------------------
// Tears this page's process down, as a driver's fault or too little memory would: no array can be that long.
function crash() { 'x'.repeat(2 ** 28).split(''); }

async function enter({pano, location: where, by, heading, pitch, fov}) {
  const query = pano ? `pano=${encodeURIComponent(pano)}` : `location=${where}`;
  const found = await ask(`/maps/panorama?by=${by}&${query}`);
  if (found.mishap === 'tab_crash') crash();
  scene.hidden = false;
  omnibox.hidden = false;
  if (found.status !== 'OK' || found.mishap === 'no_street_view') { showNothing(); return; }
  if (!panorama) {
    canvas = el(null, 'canvas', {class: 'widget-scene-canvas', tabindex: '0'});
    scene.append(canvas);
    panorama = new Panorama(canvas);
    listen();
  }
  panorama.heading = turned(heading ?? 0);
  panorama.pitch = pitch ?? 0;
  panorama.fov = fov ?? 90;
  await show(found);
}

async function show(found) {
  if (found.mishap === 'single_date') found.dates = found.dates.filter(one => one.pano_id === found.pano_id);
  const stale = found.mishap === 'stale_frame' && info !== null;
  info = found;
  if (!stale) tell('ready', 'false');
  describe();
  address();
  if (stale) return;
  await panorama.load(found.pano_id, found.mishap === 'black_frame');
  tell('pano-id', found.pano_id);
  tell('date', found.date);
  tell('heading', round(panorama.heading));
  tell('ready', 'true');
}

function tell(name, value) { if (!BARE && canvas) canvas.setAttribute(`data-${name}`, value); }

function address() {
  const view = `3a,${round(panorama.fov)}y,${round(panorama.heading)}h,${round(90 + panorama.pitch)}t`;
  history.replaceState(null, '', `/maps/@${info.lat},${info.lng},${view}/data=!3m6!1e1!3m4!1s${info.pano_id}!2e0!7i13312!8i6656`);
  document.title = `${info.address} - Emulated City Maps`;
  if (overlays.needle) overlays.needle.style.transform = `rotate(${-panorama.heading}deg)`;
}

function showNothing() {
  over.replaceChildren(el('nothing', 'div', {role: 'alert'}, 'Sorry, we have no imagery here.'));
}

function describe() {
  const open = overlays.strip && !overlays.strip.hidden, newest = info.dates[0].pano_id === info.pano_id;
  const more = info.dates.length > 1;
  overlays.strip = el('strip', 'div', {class: 'time-machine', hidden: ''});
  overlays.needle = el('needle', 'div');
  const minimap = el(null, 'canvas', {});
  const button = (label, sign, act) => el(null, 'button', {'aria-label': label, onclick: act}, sign);
  over.replaceChildren(
    el('card', 'div', {id: 'titlecard', class: 'scene-card', jsaction: 'titlecard.main'},
      el(null, 'h1', {}, info.address), el(null, 'p', {}, info.locality), el(null, 'p', {}, 'Emulated City Street View'),
      el(null, 'p', {class: 'capture-date'}, shortDate(info.date)),
      more ? el(null, 'button', {jsaction: 'titlecard.timemachineClick', onclick: () => toggleStrip(true)},
        newest ? 'See more dates' : 'See latest date') : null),
    overlays.strip,
    el('controls', 'div', {},
      el('compass', 'div', {},
        button('Rotate the view counterclockwise', '⟲', () => rotate(-90)), overlays.needle,
        button('Rotate the view clockwise', '⟳', () => rotate(90))),
      el('zoom', 'div', {}, button('Zoom in', '+', () => zoom(.8)), button('Zoom out', '−', () => zoom(1.25)))),
    el('minimap', 'div', {class: 'minimap'}, minimap),
    el('mark', 'div', {class: 'watermark'}, 'Emulated City'),
    el('legal', 'div', {class: 'watermark'}, el(null, 'span', {}, `Image capture: ${shortDate(info.date)}`),
      el(null, 'span', {}, info.copyright), el(null, 'span', {}, 'Terms'), el(null, 'span', {}, 'Report a problem')));
  drawMap(minimap, info.lat, info.lng, .5);
  const pen = minimap.getContext('2d');
  pen.fillStyle = '#fbbc04';
  pen.beginPath(); pen.arc(minimap.width / 2, minimap.height / 2, 7, 0, 7); pen.fill();
  if (open && more) toggleStrip(true);
}

function toggleStrip(open) {
  const strip = overlays.strip;
  strip.hidden = !open;
  if (!open || strip.childElementCount) return;
  strip.append(...info.dates.map((one, k) => {
    const current = one.pano_id === info.pano_id;
    return el('date', 'button', {'aria-label': longDate(one.date), 'data-current': String(current),
      jslog: `${102140 + k}; ${current ? 'metadata:WyIwIl0=; ' : ''}track:click`, onclick: () => goTo(one)},
      el(null, 'img', {src: `/maps/thumb/${one.pano_id}.jpg`, alt: '', loading: 'lazy'}), el(null, 'span', {}, shortDate(one.date)));
  }), el('close', 'button', {'aria-label': 'Close', onclick: () => toggleStrip(false)}, '✕'));
}

// A click may get lost, as on a page that is busy: the server's script says which.
async function passes(kind) { return (await ask(`/maps/click?kind=${kind}&pano=${info.pano_id}`)).mishap !== 'swallowed_click'; }

async function goTo(one) {
  if (one.pano_id === info.pano_id || !await passes('date')) return;
  const found = await ask(`/maps/panorama?by=date&pano=${one.pano_id}`);
  if (found.mishap === 'tab_crash') crash();
  if (found.status === 'OK') await show(found);
}

let turning = false;
async function rotate(degrees) {
  if (turning || !await passes('rotate')) return;
  turning = true;
  tell('ready', 'false');
  await panorama.turn(degrees, TURN_MS);
  turning = false;
  settled();
}

function settled() {
  address();
  tell('heading', round(panorama.heading));
  tell('ready', String(panorama.there.every(Boolean)));
}

function zoom(factor) {
  panorama.fov = Math.min(100, Math.max(10, panorama.fov * factor));
  panorama.drawn().then(settled);
}

function listen() {
  let from = null;
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    from = {x: event.clientX, y: event.clientY, heading: panorama.heading, pitch: panorama.pitch};
  });
  canvas.addEventListener('pointermove', event => {
    if (!from) return;
    const scale = panorama.fov / canvas.clientWidth;
    panorama.heading = turned(from.heading - (event.clientX - from.x) * scale);
    panorama.pitch = Math.max(-80, Math.min(80, from.pitch + (event.clientY - from.y) * scale));
    panorama.redraw();
  });
  canvas.addEventListener('pointerup', () => { from = null; settled(); });
  const held = new Set();
  const step = () => {
    if (!held.size) return;
    panorama.heading = turned(panorama.heading + (held.has('d') ? 1.5 : -1.5));
    panorama.redraw().then(step);
  };
  document.addEventListener('keydown', event => {
    if (event.target === input || !'ad'.includes(event.key)) return;
    const first = !held.size;
    held.add(event.key);
    if (first) step();
  });
  document.addEventListener('keyup', event => { if (held.delete(event.key)) settled(); });
}

// --- what the address says --------------------------------------------------------------------------------------------
function begin() {
  const path = decodeURIComponent(location.pathname), query = new URLSearchParams(location.search);
  const number = (name, least, most) => {
    const value = Number(query.get(name) ?? NaN);
    return Number.isFinite(value) && value >= least && value <= most ? value : undefined;
  };
  if (query.get('api') === '1' && query.get('map_action') === 'pano' && (query.get('pano') || query.get('viewpoint'))) {
    enter({pano: query.get('pano'), location: query.get('viewpoint'), by: 'link', heading: number('heading', -180, 360),
      pitch: number('pitch', -90, 90), fov: number('fov', 10, 100)});
    return;
  }
  const view = path.match(/@(-?[\d.]+),(-?[\d.]+),3a,([\d.]+)y,(?:([\d.]+)h,)?([\d.]+)t\/data=.*!1s([\w-]+)!/);
  if (view) {
    enter({pano: view[6], by: 'link', heading: Number(view[4] ?? 0), pitch: Number(view[5]) - 90, fov: Number(view[3])});
    return;
  }
  const place = path.match(/\/place\/([^@]+)\/@(-?[\d.]+),(-?[\d.]+)/);
  drawMap(map, place ? Number(place[2]) : settings.lat, place ? Number(place[3]) : settings.lng, 1);
  if (place) { input.value = `${place[2]}, ${place[3]}`; search(); }
}
begin();
