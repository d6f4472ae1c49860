/** The collected places as faint dots: in a city they draw its streets, which a map without tiles has not. */

import * as api from './api.mjs';
import { collection } from './geo.mjs';

/** Above this many the map takes vector tiles in place of one GeoJSON. */
export const MOST_POINTS = 5000;
const LAYER = 'places-below';
let known = null;

export class PlacesLayer {
  #map;
  #context;

  constructor(map, context) {
    this.#map = map;
    this.#context = context;
  }

  /** Draw them; a map without them is still a map, so that a failure leaves none and says nothing. */
  async show() {
    const { region, signal } = this.#context;
    if (region.has.coverage !== true) return;
    try {
      known ??= await load(signal);
    } catch {
      return;
    }
    if (signal.aborted) return;
    const source = known.tiles ? { tiles: { url: 'tiles/{z}/{x}/{y}.mvt', layer: 'locations' } } : { data: known.data };
    this.#map.setLayer({ id: LAYER, kind: 'circle', radius: 2, colour: '--map-dot', opacity: 0.6, ...source });
  }
}

async function load(signal) {
  const { locations } = await api.get('/coverage', { signal });
  if (locations > MOST_POINTS) return { tiles: true };
  const { features } = await api.get('/locations', { query: { status: 'collected' }, signal });
  return { data: collection(features) };
}
