/** One answer: on the map, in a sentence, and in tables. */

import { hasDistricts } from './basemap.mjs';
import { bar } from './charts.mjs';
import { h, noPreview, notice, put, section, table } from './dom.mjs';
import * as format from './format.mjs';
import { circle, collection, metresBetween } from './geo.mjs';
import { createMap } from './map.mjs';
import { initials, initialsKey } from './markers.mjs';
import { credit, picture, when } from './pictures.mjs';
import { PlacesLayer } from './places.mjs';

const NEAR_M = 100;
const NEARLY_NOTHING = 0.05; // candidates of less are not zoomed out for
const HEAT = ['--heat-1', '--heat-2', '--heat-3', '--heat-4', '--heat-5'];
const SEQ = ['--seq-1', '--seq-2', '--seq-3', '--seq-4', '--seq-5'];

export class AnswerPanel {
  headline = '';
  #context;
  #settings;
  #map;
  #item = null;
  #said = h('div', { class: 'card said' });
  #mapFrame = h('div');
  #below = h('div');

  constructor(container, context, settings) {
    this.#context = context;
    this.#settings = settings;
    container.append(h('div', { class: 'split' }, h('section', { 'aria-label': 'Map of the answer' }, this.#mapFrame), this.#said), this.#below);
  }

  async open() {
    this.clear();
    const { region, signal } = this.#context;
    this.#map = await createMap(this.#mapFrame, region, { label: `Map of ${region.name} with the answer`, signal });
    await new PlacesLayer(this.#map, this.#context).show();
  }

  /** Nothing asked yet. */
  clear() {
    this.#item = null;
    put(this.#said, h('h2', {}, 'Answer'), h('p', { class: 'muted' }, 'Choose a photo or a held-out view; its answer stands here and on the map.'));
    put(this.#below);
    this.#map?.setMarkers([]);
    for (const id of ['heat', 'districts-heat', 'area', 'near']) this.#map?.removeLayer(id);
    this.#map?.setLegend('', []);
  }

  /** @param {number} n photos asked about */
  busy(n) {
    put(this.#said, h('h2', {}, 'Answer'), h('p', { class: 'busy' }, n > 1 ? `Asking about ${n} photos …` : 'Asking …'));
  }

  /** @param {import('./ask.mjs').Item} item */
  show(item) {
    this.#item = item;
    if (!item.answer) {
      this.clear();
      const { title, detail } = item.error ?? { title: 'Not answered', detail: '' };
      put(this.#said, photoHead(item, h('p', { class: 'headline' }, title), h('p', {}, detail)));
      return;
    }
    this.redraw();
    this.#map.fitTo(...this.#extent());
  }

  /** Show the same answer with other settings. */
  redraw() {
    if (!this.#item?.answer) return;
    put(this.#said, ...this.#sentences());
    put(this.#below, this.#evidence(), h('div', { class: 'columns' }, this.#experts(), this.#districts()));
    this.#drawMap();
  }

  #sentences() {
    const { answer } = this.#item;
    const { release, seconds } = answer;
    return [
      answer.answered ? this.#answered(answer) : this.#refused(answer),
      this.#truth(),
      answer.answered ? this.#radii(answer) : null,
      h('p', { class: 'muted small' }, `Release ${release ?? 'unknown'}, answered in ${format.quantity(seconds, 's')}.`),
    ];
  }

  #answered(answer) {
    const [headline, detail] = HEADLINES[this.#settings.granularity](answer, hasDistricts(this.#context.region));
    this.headline = headline;
    const { region } = answer;
    return photoHead(this.#item, h('p', { class: 'headline' }, headline), h('p', {}, detail),
      region ? h('p', {}, `With ${format.percent(region.coverage)} it lies in the drawn region of ${format.area(region.area_km2)}.`)
        : h('p', { class: 'muted' }, 'This release is not calibrated: it says where, but not how sure.'));
  }

  #refused(answer) {
    const reason = String(answer.refusal ?? 'not answered');
    this.headline = reason.startsWith('outside') ? 'Outside this region' : 'No answer';
    return h('div', { class: 'refused' }, photoHead(this.#item, h('p', { class: 'headline' }, this.headline),
      h('p', {}, `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`.replace(/\.\.$/, '.')),
      h('p', { class: 'muted' }, 'What is most alike is still listed below, as evidence rather than as an answer.')));
  }

  #truth() {
    const { truth } = this.#item.answer;
    if (!truth) return null;
    const points = `${format.count(truth.score)} of ${format.count(this.#fullScore)} points`;
    const off = `${format.distance(truth.distance_m)} away`;
    return h('dl', { class: 'facts' }, h('dt', {}, 'True position'), h('dd', {}, format.position(truth.lat_deg, truth.lng_deg)),
      h('dt', {}, 'The best position is'), h('dd', {}, Number.isFinite(truth.score) ? `${off} (${points})` : off));
  }

  get #fullScore() { return 5000; }

  #radii({ probability_within_m: within }) {
    if (!within) return null;
    const rows = Object.entries(within).sort(([a], [b]) => a - b)
      .map(([radius, p]) => [format.distance(Number(radius)), format.probability(p), bar(p)]);
    return table('Probability that the photo was taken within a distance of the best position', ['Within', '#Probability', ''], rows, { hideCaption: false });
  }

  #evidence() {
    const { candidates } = this.#item.answer;
    if (!candidates?.length) return section('Evidence', notice('No place is near enough in looks to be shown.'));
    return section('Evidence: the places most alike', h('ol', { class: 'candidates' }, candidates.map((one) => h('li', { class: 'candidate' },
      h('h3', {}, h('span', {}, `${one.rank}. ${format.position(one.lat_deg, one.lng_deg, 4)}`), h('span', {}, format.probability(one.confidence))),
      h('p', { class: 'muted small' }, `${format.distance(one.distance_m)} from the best position`, this.#fromTruth(one)),
      h('div', { class: 'pictures' }, (one.captures ?? []).map((capture) =>
        picture(capture, { alt: `View of candidate ${one.rank}, ${when(capture)}`, lines: alike(capture) })))))));
  }

  #fromTruth({ lat_deg: lat, lng_deg: lng }) {
    const { truth } = this.#item.answer;
    return truth ? `, ${format.distance(metresBetween(lat, lng, truth.lat_deg, truth.lng_deg))} from the true one` : '';
  }

  #experts() {
    const { experts, lat_deg: lat, lng_deg: lng } = this.#item.answer;
    if (!experts || !Object.keys(experts).length) return section('Which expert said what', notice('One model alone answers in this release.'));
    const rows = Object.entries(experts).map(([name, one]) => [
      name, format.position(one.lat_deg, one.lng_deg, 4), format.distance(metresBetween(lat, lng, one.lat_deg, one.lng_deg)), format.quantity(one.weight),
    ]);
    return section('Which expert said what', table('The best position of each expert by itself', ['Expert', 'Its own best position', '#From the answer', '#Weight'], rows));
  }

  #districts() {
    const found = this.#item.answer.districts ?? [];
    if (!found.length || !hasDistricts(this.#context.region)) return null;
    const rows = found.slice(0, 8).map(({ name, probability }) => [name, format.probability(probability), bar(probability)]);
    return section('Districts', table('Probability of each district', ['District', '#Probability', ''], rows));
  }

  #drawMap() {
    const { answer } = this.#item;
    const { granularity, heat, area, experts, candidates } = this.#settings;
    const legend = [];
    const markers = [];
    const one = (id, lat, lng, kind, title, text) => markers.push({ id, lat, lng, kind, title, text });
    const byDistrict = granularity === 'district' && answer.answered;
    for (const id of ['area', 'near']) this.#map.removeLayer(id); // outlines are drawn above what is filled below
    this.#fillLayer('districts-heat', byDistrict && this.#districtShares(answer), SEQ, 0.6);
    this.#fillLayer('heat', !byDistrict && heat && answer.answered && answer.heat, HEAT, 0.7);
    this.#outline('area', area && answer.answered && answer.region?.geometry && { type: 'Feature', properties: {}, geometry: answer.region.geometry });
    this.#outline('near', granularity === 'near' && answer.answered && circle(answer.lat_deg, answer.lng_deg, NEAR_M), [2, 2]);
    if (candidates) {
      for (const { rank, lat_deg: lat, lng_deg: lng } of [...(answer.candidates ?? [])].reverse()) one(`c${rank}`, lat, lng, 'candidate', `Candidate ${rank}`, String(rank));
      if (answer.candidates?.length) legend.push({ marker: 'candidate', text: 'candidates by rank' });
    }
    if (experts && answer.experts && answer.answered) {
      const names = Object.keys(answer.experts);
      const short = initials(names);
      for (const [name, { lat_deg: lat, lng_deg: lng }] of Object.entries(answer.experts)) one(`e${name}`, lat, lng, 'expert', `${name} by itself`, short[name]);
      legend.push({ marker: 'expert', text: `one expert by itself (${initialsKey(names)})` });
    }
    if (answer.answered) {
      one('model', answer.lat_deg, answer.lng_deg, 'model', 'Best position');
      legend.unshift({ marker: 'model', text: 'best position' });
    }
    if (answer.truth) {
      one('truth', answer.truth.lat_deg, answer.truth.lng_deg, 'truth', 'True position');
      legend.unshift({ marker: 'truth', text: 'true position' });
    }
    if (area && answer.answered && answer.region) legend.push({ line: '--ink', text: `${format.percent(answer.region.coverage)} region` });
    this.#map.setMarkers(markers);
    this.#map.setLegend('', [...legend, ...this.#scale(byDistrict)]);
  }

  #districtShares(answer) {
    const share = Object.fromEntries((answer.districts ?? []).map(({ name, probability }) => [name, probability]));
    return collection((this.#context.region.districts?.features ?? []).filter(({ properties }) => share[properties.name] > 0)
      .map((one) => ({ ...one, properties: { name: one.properties.name, probability: share[one.properties.name] } })));
  }

  #fillLayer(id, data, tokens, opacity) {
    if (!data?.features?.length) { this.#map.removeLayer(id); return; }
    this.#map.setLayer({ id, kind: 'fill', opacity, data, colour: { by: 'probability', steps: steps(data, tokens), other: tokens[0] } });
  }

  #outline(id, feature, dash) {
    if (!feature) return;
    this.#map.setLayer({ id, kind: 'line', width: 2.5, dash, colour: '--ink', data: collection([feature]) });
  }

  #scale(byDistrict) {
    const { answer } = this.#item;
    const data = byDistrict ? this.#districtShares(answer) : this.#settings.heat && answer.answered && answer.heat;
    if (!data?.features?.length) return [];
    const found = steps(data, byDistrict ? SEQ : HEAT);
    return found.map(([least, token], i) => ({
      colour: token,
      text: i === 0 ? `below ${format.percent(found[1][0], 1)} per ${byDistrict ? 'district' : 'cell'}` : `from ${format.percent(least, 1)}`,
    })).reverse();
  }

  #extent() {
    const { answer } = this.#item;
    const points = [];
    if (answer.answered) points.push([answer.lat_deg, answer.lng_deg]);
    if (answer.truth) points.push([answer.truth.lat_deg, answer.truth.lng_deg]);
    for (const one of (answer.candidates ?? []).filter(({ confidence }) => confidence >= NEARLY_NOTHING)) points.push([one.lat_deg, one.lng_deg]);
    return [points, answer.answered && answer.region ? [answer.region.geometry] : [], 600];
  }
}

const HEADLINES = {
  district(answer) {
    const [likeliest] = answer.districts ?? [];
    const name = answer.district ?? likeliest?.name ?? 'No district';
    const share = answer.districts?.find((one) => one.name === name)?.probability;
    return [name, Number.isFinite(share) ? `${format.probability(share)} that it was taken in this district.` : 'The district of the best position.'];
  },
  near(answer, named) {
    const within = answer.probability_within_m?.[String(NEAR_M)];
    return [`About ${format.position(answer.lat_deg, answer.lng_deg, 3)}`,
      `${named && answer.district ? `In ${answer.district}. ` : ''}${Number.isFinite(within) ? `${format.probability(within)} that it was taken within ${format.distance(NEAR_M)} of this.` : ''}`];
  },
  exact(answer, named) {
    const [radius, p] = Object.entries(answer.probability_within_m ?? {}).sort(([a], [b]) => a - b)[0] ?? [];
    return [format.position(answer.lat_deg, answer.lng_deg),
      `${named && answer.district ? `In ${answer.district}. ` : ''}${radius ? `${format.probability(p)} that it was taken within ${format.distance(Number(radius))} of this.` : ''}`];
  },
};

function alike({ similarity, shared_features: shared }) {
  return [`similarity ${format.quantity(similarity)}`, Number.isInteger(shared) ? `${shared} details in common` : ''].filter(Boolean);
}

function photoHead(item, ...text) {
  const held = item.sample;
  return h('div', { class: 'answer-head' },
    h('figure', { class: 'picture' }, h('img', { src: item.url, alt: held ? `The held-out view that was asked about, ${when(held)}` : `Your photo ${item.name}`, on: { error: noPreview } }),
      held ? h('figcaption', {}, credit(held)) : null),
    h('div', {}, text));
}

/** Five classes up to the largest probability that is shown. */
function steps(data, tokens) {
  const most = data.features.reduce((best, { properties }) => Math.max(best, properties.probability), 0);
  return [0, 0.05, 0.2, 0.45, 0.75].map((share, i) => [share * most, tokens[i]]);
}
