/** Geometry on small areas, degrees in, metres out. */

const RADIUS_M = 6_371_008.8;
const radians = (degrees) => (degrees * Math.PI) / 180;

/** Great-circle distance, metres. */
export function metresBetween(lat1, lng1, lat2, lng2) {
  const a = Math.sin(radians(lat2 - lat1) / 2) ** 2
    + Math.cos(radians(lat1)) * Math.cos(radians(lat2)) * Math.sin(radians(lng2 - lng1) / 2) ** 2;
  return 2 * RADIUS_M * Math.asin(Math.min(1, Math.sqrt(a)));
}

/** A circle as a GeoJSON feature. @param {number} lat @param {number} lng @param {number} radiusM @param {object} [properties] */
export function circle(lat, lng, radiusM, properties = {}) {
  const steps = 72;
  const dLat = (radiusM / RADIUS_M) * (180 / Math.PI);
  const dLng = dLat / Math.max(0.01, Math.cos(radians(lat)));
  const ring = Array.from({ length: steps + 1 }, (_, i) => {
    const angle = (2 * Math.PI * i) / steps;
    return [lng + dLng * Math.cos(angle), lat + dLat * Math.sin(angle)];
  });
  return { type: 'Feature', properties, geometry: { type: 'Polygon', coordinates: [ring] } };
}

/** A line as a GeoJSON feature. @param {[number, number][]} points (lat, lng) @param {object} [properties] */
export function line(points, properties = {}) {
  const coordinates = points.map(([lat, lng]) => [lng, lat]);
  return { type: 'Feature', properties, geometry: { type: 'LineString', coordinates } };
}

/** A point as a GeoJSON feature. */
export function point(lat, lng, properties = {}) {
  return { type: 'Feature', properties, geometry: { type: 'Point', coordinates: [lng, lat] } };
}

/** @param {object[]} features @returns {object} GeoJSON */
export function collection(features) {
  return { type: 'FeatureCollection', features };
}

/** Every position of a geometry. @param {any} geometry @returns {Generator<[number, number]>} (lng, lat) */
export function* positions(geometry) {
  if (!geometry) return;
  if (geometry.type === 'GeometryCollection') for (const part of geometry.geometries) yield* positions(part);
  else yield* flat(geometry.coordinates);
}

function* flat(coordinates) {
  if (typeof coordinates[0] === 'number') yield coordinates;
  else for (const part of coordinates) yield* flat(part);
}

/**
 * The box around (lat, lng) points and geometries, with a margin.
 * @param {[number, number][]} points
 * @param {any[]} [geometries]
 * @param {number} [leastM] shorter sides are widened to this
 * @returns {[number, number, number, number]|null} west, south, east, north
 */
export function boundsOf(points, geometries = [], leastM = 300) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  const add = (lng, lat) => {
    box[0] = Math.min(box[0], lng); box[1] = Math.min(box[1], lat);
    box[2] = Math.max(box[2], lng); box[3] = Math.max(box[3], lat);
  };
  for (const [lat, lng] of points) add(lng, lat);
  for (const geometry of geometries) for (const [lng, lat] of positions(geometry)) add(lng, lat);
  if (!Number.isFinite(box[0])) return null;
  const dLat = (leastM / RADIUS_M) * (180 / Math.PI);
  const dLng = dLat / Math.max(0.01, Math.cos(radians((box[1] + box[3]) / 2)));
  const widen = (low, high, least) => Math.max(0, (least - (high - low)) / 2);
  const x = widen(box[0], box[2], dLng);
  const y = widen(box[1], box[3], dLat);
  return [box[0] - x, box[1] - y, box[2] + x, box[3] + y];
}

/** Rings of a polygon or multi-polygon. @returns {[number, number][][][]} polygons of rings */
export function polygons(geometry) {
  if (geometry?.type === 'Polygon') return [geometry.coordinates];
  return geometry?.type === 'MultiPolygon' ? geometry.coordinates : [];
}

/**
 * Where a polygon's name is written: the centroid of its largest part.
 * @returns {{lat: number, lng: number, size: number}|null} size in square degrees
 */
export function labelPoint(geometry) {
  let best = null;
  for (const [outer] of polygons(geometry)) {
    const found = centroid(outer);
    if (found && (!best || found.size > best.size)) best = found;
  }
  return best;
}

function centroid(ring) {
  let [sum, x, y] = [0, 0, 0];
  const [x0, y0] = ring[0];
  for (let i = 0; i + 1 < ring.length; i += 1) {
    const [ax, ay, bx, by] = [ring[i][0] - x0, ring[i][1] - y0, ring[i + 1][0] - x0, ring[i + 1][1] - y0];
    const cross = ax * by - bx * ay;
    sum += cross; x += (ax + bx) * cross; y += (ay + by) * cross;
  }
  if (sum === 0) return null;
  return { lng: x0 + x / (3 * sum), lat: y0 + y / (3 * sum), size: Math.abs(sum) / 2 };
}
