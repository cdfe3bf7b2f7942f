// The state machine's graph: drawn once for a definition, then only lit.

import { h, setAttribute, setText, svg } from './dom.js';
import { graphOf, layout } from './state-graph.js';
import { callsOf, edgesTaken, statesOf } from './turn-model.js';

const MARGIN = 14;

export class GraphView {
  #root;
  #onSelect;
  #nodes = new Map();
  #edges = [];
  #drawnFrom = null;
  #selected = null;

  /** `onSelect(name)` is called when a state is chosen. */
  constructor(root, onSelect) {
    this.#root = root;
    this.#onSelect = onSelect;
  }

  define(definition) {
    const key = JSON.stringify(definition);
    if (key === this.#drawnFrom) return;
    this.#drawnFrom = key;
    const plan = layout(graphOf(definition));
    this.#nodes.clear();
    this.#edges = [];
    const width = plan.width + 2 * MARGIN;
    const height = plan.height + 2 * MARGIN;
    const boxes = svg('g');
    const edges = svg('g', { 'aria-hidden': 'true' });
    const states = svg('g');
    for (const edge of plan.edges) {
      const path = svg('path', { class: `edge ${edge.kind}`, d: edge.path, transform: `translate(${edge.moved[0]} ${edge.moved[1]})`, 'marker-end': 'url(#arrow)' });
      edges.append(path);
      this.#edges.push({ key: `${edge.from}\n${edge.to}`, path });
    }
    for (const node of plan.nodes) (node.box ? boxes : states).append(this.#node(node));
    this.#root.replaceChildren(svg('svg', {
      viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': 'The state machine: arrow keys move between its states',
      'data-width': Math.round(width), on: { keydown: (event) => this.#move(event) },
    }, arrows(), svg('g', { transform: `translate(${MARGIN} ${MARGIN})` }, boxes, edges, states)));
    this.#focusable(definition.StartAt);
  }

  fail(node) {
    this.#drawnFrom = null;
    this.#root.replaceChildren(node);
  }

  update(turn) {
    const states = statesOf(turn);
    for (const [name, node] of this.#nodes) {
      const state = states.get(name);
      const look = !state ? 'idle' : state.running ? 'running' : state.outcome;
      setAttribute(node.group, 'data-state', look);
      node.visits.show(state && state.visits > 1 ? `×${state.visits}` : '');
      node.retries.show(state?.retries ? `↻ ${state.retries}` : '');
      node.failures.show(state?.failures ? `✕ ${state.failures}` : '');
      const calls = node.box && state ? callsOf(turn, name) : null;
      if (node.calls) setText(node.calls, calls ? `${calls.calls} ${calls.calls === 1 ? 'call' : 'calls'}${calls.running ? `, ${calls.running} running` : ''}` : '');
      setAttribute(node.group, 'aria-label', describe(name, look, state, calls));
    }
    const taken = edgesTaken(turn);
    for (const edge of this.#edges) setAttribute(edge.path, 'data-taken', taken.has(edge.key) ? 'yes' : null);
  }

  select(name) {
    this.#selected = name;
    for (const [other, node] of this.#nodes) setAttribute(node.group, 'aria-pressed', other === name ? 'true' : 'false');
    if (name && this.#nodes.has(name)) this.#focusable(name);
  }

  #node(node) {
    const { x, y, width, height } = node;
    const visits = badge('visits', x + width - 4, y);
    const retries = badge('retries', x + width - 4, y + (node.box ? 0 : height));
    const failures = badge('failures', x + 4, y + (node.box ? 0 : height), 'start');
    const calls = node.box ? svg('text', { class: 'calls', x: x + width - 34, y: y + 19, 'text-anchor': 'end' }) : null;
    const label = node.box
      ? svg('text', { class: 'label', x: x + 12, y: y + 19, text: node.name })
      : svg('text', { class: 'label', x: x + width / 2, y: y + height / 2 + 4, 'text-anchor': 'middle', text: node.name });
    const group = svg('g', {
      class: `node ${node.box ? 'box' : ''}`, role: 'button', tabindex: -1, 'aria-pressed': 'false', 'data-type': node.type, 'data-name': node.name, 'data-state': 'idle',
      on: { click: () => this.#choose(node.name) },
    }, shape(node), label, calls, visits.group, retries.group, failures.group, node.comment && svg('title', { text: node.comment }));
    this.#nodes.set(node.name, { group, visits, retries, failures, calls, box: node.box, middle: [x + width / 2, y + Math.min(height, 28) / 2] });
    return group;
  }

  #choose(name) {
    this.#focusable(name);
    this.#nodes.get(name).group.focus();
    this.#onSelect(name);
  }

  #focusable(name) {
    for (const [other, node] of this.#nodes) setAttribute(node.group, 'tabindex', other === name ? 0 : -1);
  }

  /** The arrow keys go to the nearest state in their direction. */
  #move(event) {
    const current = event.target.closest?.('[data-name]')?.dataset.name;
    if (!current) return;
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      this.#choose(current);
      return;
    }
    const direction = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const [x, y] = this.#nodes.get(current).middle;
    let best = null;
    for (const [name, node] of this.#nodes) {
      const along = (node.middle[0] - x) * direction[0] + (node.middle[1] - y) * direction[1];
      const across = Math.abs((node.middle[0] - x) * direction[1]) + Math.abs((node.middle[1] - y) * direction[0]);
      if (along > 1 && (!best || along + 2 * across < best.far)) best = { name, far: along + 2 * across };
    }
    if (!best) return;
    this.#focusable(best.name);
    this.#nodes.get(best.name).group.focus();
  }
}

function shape({ x, y, width, height, type, box }) {
  if (box) return svg('rect', { class: 'shape', x, y, width, height, rx: 8 });
  if (type === 'Choice') {
    const cut = 11;
    const points = [[x + cut, y], [x + width - cut, y], [x + width, y + height / 2], [x + width - cut, y + height], [x + cut, y + height], [x, y + height / 2]];
    return svg('polygon', { class: 'shape', points: points.join(' ') });
  }
  return svg('rect', { class: 'shape', x, y, width, height, rx: type === 'Wait' ? height / 2 : 5 });
}

/** A small number at a corner of a state; its group is hidden while there is nothing to say. */
function badge(kind, x, y, anchor = 'end') {
  const rect = svg('rect', { rx: 6.5, height: 13, y: y - 6.5 });
  const text = svg('text', { y: y + 3.5, 'text-anchor': 'middle' });
  const group = svg('g', { class: `badge ${kind}`, visibility: 'hidden' }, rect, text);
  return {
    group,
    show(content) {
      setAttribute(group, 'visibility', content ? 'visible' : 'hidden');
      setText(text, content);
      const width = Math.max(16, content.length * 6 + 7);
      const left = anchor === 'end' ? x - width + 6 : x - 6;
      setAttribute(rect, 'width', width);
      setAttribute(rect, 'x', left);
      setAttribute(text, 'x', left + width / 2);
    },
  };
}

function arrows() {
  return svg('defs', {}, svg('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto-start-reverse' },
    svg('path', { class: 'arrow', d: 'M0.5 1L7 4L0.5 7Z' })));
}

function describe(name, look, state, calls) {
  if (!state) return `${name}, not visited`;
  const said = [name, look === 'caught' ? 'failed and was caught' : look, `visited ${state.visits} times`.replace('1 times', 'once')];
  if (calls) said.push(`${calls.calls} calls`);
  if (state.retries) said.push(`tried again ${state.retries} times`.replace(/\b1 times/, 'once'));
  if (state.failures) said.push(`failures: ${[...state.errors].join(', ')}`);
  return said.join(', ');
}

/** What stands in the place of the graph when its definition cannot be read. */
export const noGraph = (text) => h('p', { class: 'empty', text });
