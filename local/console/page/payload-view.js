// What a span was given and what it answered: its state's input and output, its model call, its trace events.

import { read } from './api.js';
import { errorState, h, loadingState, pairs } from './dom.js';
import { clock, duration } from './format.js';

/** What every event of its kind has, and the title says already. */
const COMMON = new Set([
  'type', 'step', 'index', 'toolUseId', 'timestamp', 'traceId', 'sessionId', 'turnId', 'agentId', 'agentVersion', 'memoryId', 'consolidationId',
]);
const LONG = 1200;
const OPEN_LEVELS = 2;
/** Fields of a trace event that are JSON texts. */
const NESTED = new Set(['prompt', 'inferenceConfiguration', 'response', 'arguments', 'result', 'records', 'cause', 'errorMessage']);

export class PayloadView {
  #root;
  #title;
  #current = '';

  constructor(root, title) {
    this.#root = root;
    this.#title = title;
    this.clear();
  }

  clear() {
    this.#current = '';
    this.#title.textContent = 'Payload';
    this.#root.replaceChildren(h('p', { class: 'empty', text: 'Choose a span or a state to see what went in and what came out.' }));
  }

  /** Shows a value that is there already. */
  showValue(turnId, title, value) {
    this.#current = `${turnId} ${title}`;
    this.#title.textContent = title;
    this.#root.replaceChildren(section(title, value));
  }

  /** Shows a row of the waterfall. A later call wins over an earlier one whose data comes late. */
  async show(turn, row) {
    const key = `${turn.turnId} ${row.id} ${row.status}`;
    if (key === this.#current) return;
    this.#current = key;
    this.#title.textContent = [row.label, row.note].filter(Boolean).join(' · ');
    this.#root.replaceChildren(loadingState());
    try {
      const parts = await sections(turn, row);
      if (key !== this.#current) return;
      this.#root.replaceChildren(
        pairs([['Status', row.status], ['Began', clock(row.start)], ['Took', row.duration === null ? 'still running' : duration(row.duration)],
          ['Itself', row.work && duration(row.work.duration)]], 'pairs inline'),
        ...parts);
      this.#root.scrollTop = 0;
    } catch (error) {
      if (key !== this.#current) return;
      const again = () => { this.#current = ''; this.show(turn, row); };
      this.#root.replaceChildren(errorState('The payload could not be read', error, again));
    }
  }
}

async function sections(turn, row) {
  const { source } = row;
  const [events, step, visit, output] = await Promise.all([
    Promise.all(source.events.map((id) => read('turns', turn.turnId, 'events', id))),
    source.step && read('turns', turn.turnId, 'steps', source.step),
    source.visit && read('turns', turn.turnId, 'visits', source.visit),
    source.output && source.output !== source.visit ? read('turns', turn.turnId, 'visits', source.output) : null,
  ]);
  const parts = events.map((event) => section(`Event ${event.type}`, nested(event), event.status === 'FAILED' ? 'failed' : ''));
  if (step) parts.push(section('Journal: the model call', step));
  if (visit) parts.push(...visitSections(visit, source.try));
  if (output) parts.push(section('Output to the model', output.output));
  return parts.length ? parts : [h('p', { class: 'empty', text: row.hasChildren ? 'It passes nothing on: what is in it has the payloads.' : 'Nothing is recorded of it.' })];
}

function visitSections(visit, only) {
  const parts = [];
  const tries = only === undefined ? visit.tries : [visit.tries[only]];
  tries.forEach((attempt, index) => {
    const named = tries.length > 1 ? ` of try ${index + 1}` : '';
    if (attempt.error) parts.push(section(`Error${named}`, { error: attempt.error, cause: parsed(attempt.cause) }, 'failed'));
    if (attempt.result !== null) parts.push(section(`Result${named}`, attempt.result?.Payload ?? attempt.result));
    if (attempt.arguments !== null) parts.push(section(`Given${named}`, attempt.arguments?.Payload ?? attempt.arguments));
  });
  if (visit.pending) parts.push(section('Given to the try under way', visit.pending.Payload ?? visit.pending));
  if (only === undefined) {
    if (visit.output !== null && !isEmpty(visit.output)) parts.push(section('State output', visit.output));
    if (visit.input !== null && !isEmpty(visit.input)) parts.push(section('State input', visit.input));
  }
  return parts;
}

const isEmpty = (value) => typeof value === 'object' && value !== null && Object.keys(value).length === 0;

/** An event's own fields first. */
function nested(event) {
  const fields = Object.entries(event).map(([name, value]) => [name, NESTED.has(name) ? parsed(value) : value]);
  return Object.fromEntries([...fields.filter(([name]) => !COMMON.has(name)), ...fields.filter(([name]) => COMMON.has(name))]);
}

/** A JSON text as its value, also where that holds JSON texts again (a Lambda error's message); any other as it is. */
function parsed(text) {
  if (typeof text !== 'string' || !/^\s*[[{]/.test(text)) return text;
  try {
    const value = JSON.parse(text);
    return typeof value.errorMessage === 'string' ? { ...value, errorMessage: parsed(value.errorMessage) } : value;
  } catch {
    return text;
  }
}

function section(title, value, status = '') {
  const copy = h('button', { type: 'button', class: 'quiet copy', text: 'Copy', on: { click: () => copyText(copy, value) } });
  return h('section', { class: 'document', 'data-status': status || null }, h('h3', {}, h('span', { text: title }), copy), tree(value, 0));
}

async function copyText(button, value) {
  try {
    await navigator.clipboard.writeText(typeof value === 'string' ? value : JSON.stringify(value, null, 2));
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Not allowed';
  }
}

/** A JSON value as a tree that can be folded. */
export function tree(value, level) {
  if (value === null || typeof value !== 'object') return leaf(value);
  const entries = Object.entries(value);
  if (!entries.length) return h('span', { class: 'json-other', text: Array.isArray(value) ? '[]' : '{}' });
  return h('ul', { class: 'json' }, entries.map(([name, inner]) => entry(name, inner, level)));
}

function entry(name, value, level) {
  const key = h('span', { class: 'json-key', text: name });
  if (value === null || typeof value !== 'object' || !Object.keys(value).length) return h('li', {}, key, tree(value, level));
  const size = Array.isArray(value) ? `${value.length}` : '';
  return h('li', {}, h('details', { open: level < OPEN_LEVELS }, h('summary', {}, key, size && h('span', { class: 'count', text: size })), tree(value, level + 1)));
}

function leaf(value) {
  if (typeof value !== 'string') return h('span', { class: 'json-other', text: String(value) });
  if (value.length <= LONG) return h('span', { class: 'json-text', text: value });
  const text = h('span', { class: 'json-text', text: `${value.slice(0, LONG)}…` });
  const more = h('button', {
    type: 'button', class: 'quiet', text: `Show all ${value.length} characters`,
    on: { click: () => { text.textContent = value; more.remove(); } },
  });
  return h('span', {}, text, more);
}
