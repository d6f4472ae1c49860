/** What lies below every map: the region and its districts, and the world's land where the map shows more than a city. */

import { collection, labelPoint } from './geo.mjs';

const FAR_DEGREES = 3; // the packaged land is right to some kilometres only, which looks wrong beside the streets of a city
const USA = [-180, 17, -64, 72];
let atlas = null;

/** Whether a map of this height (degrees) shows more than a city. @param {number} span */
export function isFar(span) {
  return span > FAR_DEGREES;
}

/**
 * @param {any} region
 * @param {{far: boolean}} which the land and borders, or the region itself
 * @returns {Promise<import('./map.mjs').Layer[]>}
 */
export async function baseLayers(region, { far }) {
  if (far) return farLayers(region);
  const outline = collection(region.boundary ? [{ type: 'Feature', properties: {}, geometry: region.boundary }] : []);
  const districts = region.districts ?? collection([]);
  return [
    { id: 'region', kind: 'fill', colour: '--map-region', opacity: region.tile_url ? 0 : undefined, data: outline },
    { id: 'districts', kind: 'line', colour: '--map-district', width: 1, data: districts },
    { id: 'outline', kind: 'line', colour: '--map-outline', width: 2, data: outline },
  ];
}

/** Names to write on the map, the largest district first. @param {any} region */
export function districtLabels(region) {
  return (region.districts?.features ?? [])
    .map(({ properties, geometry }) => ({ text: String(properties?.name ?? ''), ...labelPoint(geometry) }))
    .filter(({ text, size }) => text && size)
    .sort((a, b) => b.size - a.size);
}

/** Whose geometry the map shows. @param {any} region */
export function credit(region) {
  const own = `Map: the boundary ${region.districts?.features?.length ? 'and districts ' : ''}of ${region.name}; land by Natural Earth`;
  return region.tile_url && region.tile_attribution ? `${own}; tiles: ${plainText(region.tile_attribution)}` : own;
}

/** Attributions often come with links; their text is shown. @param {string} html */
export function plainText(html) {
  return new DOMParser().parseFromString(String(html), 'text/html').body.textContent.trim();
}

async function farLayers(region) {
  if (region.tile_url) return []; // the tiles show land themselves
  atlas ??= loadAtlas(overlaps(region.bounds, USA));
  const { land, borders, states } = await atlas;
  return [
    { id: 'land', kind: 'fill', colour: '--map-land', data: land, far: true },
    { id: 'borders', kind: 'line', colour: '--map-border', width: 1, data: borders, far: true },
    ...(states ? [{ id: 'states', kind: 'line', colour: '--map-border', width: 0.6, data: states, far: true }] : []),
  ];
}

async function loadAtlas(withStates) {
  const [{ default: feature }, { default: mesh }] = await Promise.all([
    import('./vendor/topojson-client/feature.js'), import('./vendor/topojson-client/mesh.js'),
  ]);
  const read = async (path) => (await fetch(new URL(`./vendor/${path}`, import.meta.url))).json();
  const [world, usa] = await Promise.all([
    read('world-atlas/countries-50m.json'), withStates ? read('us-atlas/states-10m.json') : null,
  ]);
  const inner = (topology, object) => asFeature(mesh(topology, object, (a, b) => a !== b));
  return {
    land: feature(world, world.objects.land),
    borders: inner(world, world.objects.countries),
    states: usa && inner(usa, usa.objects.states),
  };
}

function asFeature(geometry) {
  return collection([{ type: 'Feature', properties: {}, geometry }]);
}

function overlaps([west, south, east, north], [w, s, e, n]) {
  return west < e && east > w && south < n && north > s;
}
