/** Numbers, distances, dates and places as people write them. */

const NARROW = '\u202f';
const NONE = '–';
const plain = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });
const COMPASS = ['N', 'NE', 'E', 'SE', 'S', 'SW', 'W', 'NW'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** A whole number with separators. @param {number|null} value */
export function count(value) {
  return isNumber(value) ? plain.format(value) : NONE;
}

/** @param {number|null} metres @returns {string} `7 m`, `340 m`, `3.4 km`, `1,240 km` */
export function distance(metres) {
  if (!isNumber(metres)) return NONE;
  if (metres < 995) return `${Math.round(metres)}${NARROW}m`;
  if (metres < 99_500) return `${(metres / 1000).toFixed(metres < 9_950 ? 2 : 1)}${NARROW}km`;
  return `${plain.format(metres / 1000)}${NARROW}km`;
}

/** @param {number|null} km2 @returns {string} `4,200 m²`, `0.34 km²`, `1,200 km²` */
export function area(km2) {
  if (!isNumber(km2)) return NONE;
  if (km2 < 0.01) return `${plain.format(Number((km2 * 1e6).toPrecision(2)))}${NARROW}m²`;
  return `${km2 < 100 ? Number(km2.toPrecision(2)) : plain.format(km2)}${NARROW}km²`;
}

/** @param {number|null} share 0 to 1 @param {number} [digits] */
export function percent(share, digits = 0) {
  if (!isNumber(share)) return NONE;
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least / 2) return `<${least}${NARROW}%`;
  if (share < 1 && share * 100 > 100 - least / 2) return `>${(100 - least).toFixed(digits)}${NARROW}%`;
  return `${(share * 100).toFixed(digits)}${NARROW}%`;
}

/** What a model says: it is never certain, however near to 1 it comes. @param {number|null} p */
export function probability(p) {
  return percent(isNumber(p) ? Math.min(p, 1 - 1e-9) : p);
}

/** @param {string|null} iso `2019`, `2019-07` or `2019-07-15` with or without a time @returns {string} `15 Jul 2019` */
export function date(iso) {
  if (!iso) return 'no date';
  const [year, month, day] = String(iso).slice(0, 10).split('-');
  if (!month) return year;
  const name = MONTHS[Number(month) - 1] ?? month;
  return day ? `${Number(day)} ${name} ${year}` : `${name} ${year}`;
}

/** The day of a capture; most services know the month only, and give its first day. @param {string|null} iso @returns {string} */
export function captured(iso) {
  return date(iso && String(iso).slice(8, 10) === '01' ? String(iso).slice(0, 7) : iso);
}

/** @param {string|null} iso with a time, UTC @returns {string} `15 Jul 2019, 14:05 UTC` */
export function moment(iso) {
  if (!iso) return NONE;
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return String(iso);
  const text = at.toISOString();
  return `${date(text)}, ${text.slice(11, 16)} UTC`;
}

/** @param {number|null} degrees clockwise from north @returns {string} `90° E` */
export function heading(degrees) {
  if (!isNumber(degrees)) return 'no heading';
  const turned = ((degrees % 360) + 360) % 360;
  return `${Math.round(turned) % 360}° ${COMPASS[Math.round(turned / 45) % 8]}`;
}

/** @param {number} lat @param {number} lng degrees @param {number} [digits] @returns {string} `59.31234° N, 18.07123° E` */
export function position(lat, lng, digits = 5) {
  const one = (value, positive, negative) => `${Math.abs(value).toFixed(digits)}° ${value < 0 ? negative : positive}`;
  return `${one(lat, 'N', 'S')}, ${one(lng, 'E', 'W')}`;
}

/** @param {number|null} bytes */
export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let left = value;
  while (left >= 999.5 && unit < units.length - 1) { left /= 1000; unit += 1; }
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)}${NARROW}${units[unit]}`;
}

/**
 * A figure with its unit.
 * @param {number|null} value
 * @param {string} [unit] `share`, `m`, `km`, `km2`, `s`, or any other to be written behind
 */
export function quantity(value, unit = '') {
  if (!isNumber(value)) return NONE;
  if (unit === 'share') return percent(value, 1);
  if (unit === 'm') return distance(value);
  if (unit === 'km') return distance(value * 1000);
  if (unit === 'km2') return area(value);
  const text = Math.abs(value) >= 1000 ? plain.format(value) : String(Number(value.toPrecision(3)));
  return unit ? `${text}${NARROW}${unit}` : text;
}

/** The unit of a figure: its own, else what its name says. @param {{name: string, unit?: string}} figure */
export function unitOf({ name, unit }) {
  return unit ?? (/^(R@|recall|within |acc|coverage)/i.test(name) ? 'share' : '');
}

/** A figure with its 95 % interval. @param {{name: string, value: number, low?: number, high?: number, unit?: string}} one */
export function figure(one) {
  const { value, low, high } = one;
  const unit = unitOf(one);
  const text = quantity(value, unit);
  if (!isNumber(low) || !isNumber(high)) return text;
  if (unit === 'share') return `${text} (${(low * 100).toFixed(1)}–${(high * 100).toFixed(1)})`;
  return `${text} (${quantity(low, unit)}–${quantity(high, unit)})`;
}
