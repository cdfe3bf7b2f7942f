// Elements and their text. Text only ever becomes text nodes; nothing here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `properties`: `class`, `text`, `on` (listeners by event), `data` (dataset), else attributes; null: none. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets an element's text if it is another one, so that nothing is laid out (or read out) again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute, if that changes anything. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Replaces the children only if `key` differs from the last time. What has a `data-key` keeps its focus, and stays open
 * if it is a `details`.
 */
export function replaceIfChanged(element, key, make) {
  const text = JSON.stringify(key);
  if (element.renderedFrom === text) return;
  element.renderedFrom = text;
  const keyed = (selector) => [...element.querySelectorAll(selector)].map((one) => one.dataset.key);
  const open = new Set(keyed('details[open][data-key]'));
  const focused = keyed('[data-key]:focus')[0];
  element.replaceChildren(...[make()].flat());
  for (const one of element.querySelectorAll('[data-key]')) {
    if (open.has(one.dataset.key)) one.open = true;
    if (focused === one.dataset.key) one.focus({ preventScroll: true });
  }
}

export function emptyState(title, text) {
  return h('div', { class: 'empty' }, h('p', { class: 'empty-title', text: title }), h('p', { text }));
}

export function errorState(title, error, retry) {
  return h('div', { class: 'empty error', role: 'alert' },
    h('p', { class: 'empty-title', text: title }),
    h('p', { text: error.message ?? String(error) }),
    retry && h('button', { type: 'button', text: 'Try again', on: { click: retry } }));
}

export function loadingState(text = 'Loading …') {
  return h('div', { class: 'empty loading', text });
}

/** A definition list of the pairs that have a value. */
export function pairs(entries, className = 'pairs') {
  return h('dl', { class: className }, entries
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => [h('dt', { text: name }), h('dd', {}, value instanceof Node ? value : String(value))]));
}
