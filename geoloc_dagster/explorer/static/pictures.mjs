/** Street-view pictures, which never stand without whose they are. */

import * as format from './format.mjs';
import { h } from './dom.mjs';

/**
 * A picture with its caption.
 * @param {{url: string, captured_on?: string|null, heading_deg?: number|null, attribution?: string, licence?: string}} capture
 * @param {{strong?: string, alt?: string, lines?: string[]}} [more] a first line, what the picture is, further lines
 */
export function picture(capture, { strong = '', alt = '', lines = [] } = {}) {
  const said = [when(capture), ...lines, credit(capture)].filter(Boolean);
  return h('figure', { class: 'picture' },
    h('img', { src: capture.url, alt: alt || describe(capture), loading: 'lazy', decoding: 'async', width: 224, height: 224 }),
    h('figcaption', {}, strong ? h('span', { class: 'strong' }, strong, h('br')) : null,
      said.flatMap((line, i) => (i ? [h('br'), line] : [line]))));
}

/** Date and heading of a capture. */
export function when({ captured_on: day, heading_deg: heading }) {
  const parts = [];
  if (day !== undefined) parts.push(format.date(day));
  if (heading !== null && heading !== undefined) parts.push(`facing ${format.heading(heading)}`);
  return parts.join(', ');
}

/** Whose picture it is and under which terms. */
export function credit({ attribution, licence }) {
  const terms = { proprietary: 'all rights reserved', NOASSERTION: 'licence unknown' }[licence] ?? licence;
  return [attribution, terms].filter(Boolean).join(' · ');
}

/** The text for those who cannot see the picture. */
export function describe(capture) {
  return `Street view, ${when(capture) || 'no date'}`;
}
