/** Elements without markup strings: whatever the API says becomes text, never HTML. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class`, `on: {event: handler}`, `props: {name: value}`, `css: {property: value}`, or attributes;
 *   false, null and undefined leave one out
 * @param {...any} children nodes, texts, or arrays of them; false, null and undefined are left out
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. @returns {SVGElement} */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace all that is in an element. @param {Element} element @param {...any} children */
export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/**
 * A table with a caption for those who cannot see what it stands beside.
 * @param {string} caption
 * @param {string[]} header columns; those that begin with `#` are numbers and stand to the right
 * @param {any[][]} rows cells: texts or nodes; the first of a row is its header
 * @param {{hideCaption?: boolean, rowAttributes?: (row: number) => object}} [options]
 */
export function table(caption, header, rows, { hideCaption = true, rowAttributes = () => ({}) } = {}) {
  const numeric = header.map((name) => name.startsWith('#'));
  return h('div', { class: 'table-frame', tabindex: '0', role: 'group', 'aria-label': caption },
    h('table', {},
      h('caption', { class: hideCaption ? 'visually-hidden' : '' }, caption),
      h('thead', {}, h('tr', {}, header.map((name, i) =>
        h('th', { scope: 'col', class: numeric[i] ? 'number' : '' }, name.replace(/^#/, ''))))),
      h('tbody', {}, rows.map((cells, r) => h('tr', rowAttributes(r), cells.map((cell, i) =>
        i === 0 ? h('th', { scope: 'row' }, cell) : h('td', { class: numeric[i] ? 'number' : '' }, cell)))))));
}

/**
 * A labelled control.
 * @param {string} label
 * @param {HTMLElement} control
 */
export function field(label, control) {
  return h('label', { class: 'field' }, h('span', {}, label), control);
}

/**
 * A list to choose from.
 * @param {[string, string][]} options value and text
 * @param {string} value chosen at first
 * @param {(value: string) => void} onChange
 */
export function select(options, value, onChange) {
  return h('select', { on: { change: (event) => onChange(event.target.value) } },
    options.map(([key, text]) => h('option', { value: key, selected: key === value }, text)));
}

/**
 * A choice of a few, as radio buttons that look like one control.
 * @param {string} legend
 * @param {string} name of the group, unique on the page
 * @param {[string, string][]} options value and text
 * @param {string} value chosen at first
 * @param {(value: string) => void} onChange
 */
export function choice(legend, name, options, value, onChange) {
  return h('fieldset', { class: 'choice' }, h('legend', {}, legend),
    h('div', { class: 'choice-options' }, options.map(([key, text]) => h('label', {},
      h('input', { type: 'radio', name, value: key, checked: key === value, on: { change: () => onChange(key) } }),
      h('span', {}, text)))));
}

/** A box to tick. @param {string} label @param {boolean} value @param {(value: boolean) => void} onChange */
export function tick(label, value, onChange) {
  return h('label', { class: 'tick' },
    h('input', { type: 'checkbox', checked: value, on: { change: (event) => onChange(event.target.checked) } }), label);
}

/** A section with a heading. @param {string} title @param {...any} children */
export function section(title, ...children) {
  return h('section', { class: 'card', 'aria-label': title }, h('h2', {}, title), ...children);
}

/** A sentence in place of what is not there. @param {string} text @param {...any} more */
export function notice(text, ...more) {
  return h('p', { class: 'notice' }, text, ...more);
}

/** For the error of a picture that the browser cannot show, such as HEIC in most of them. @param {Event} event */
export function noPreview(event) {
  event.target.replaceWith(h('span', { class: 'muted small' }, 'no preview'));
}

/** Hand the reader a file made in the page. @param {string} name @param {string} type @param {string} text */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === 'props') Object.assign(element, value);
    else if (name === 'css') for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === 'class' && value === '') continue;
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}
