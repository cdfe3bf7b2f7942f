// The waterfall: a tree grid of spans over a time axis. Rows are kept and only changed, so that nothing jumps.

import { emptyState, h, setAttribute, setText } from './dom.js';
import { duration, tick } from './format.js';
import { rowsOf } from './turn-model.js';

const SCALES = [20, 50, 100, 200, 400, 600, 1000, 2000, 3000, 5000, 8000, 12_000, 20_000, 30_000, 40_000, 60_000, 120_000, 300_000, 600_000, 900_000];
/** A turn that is longer than all of them has a multiple of this. */
const LONG_SCALE = 1_200_000;
const NEAR_END = 40;
/** What has no length worth telling. */
const INSTANTS = new Set(['routing', 'event']);

export class SpansView {
  #root;
  #axis;
  #onSelect;
  #rows = new Map();
  #shown = [];
  #folded = new Set();
  #selected = null;
  #turn = null;
  #all = false;
  #scale = 0;

  /** `onSelect(row)` is called with the row that was chosen. */
  constructor(root, axis, onSelect) {
    this.#root = root;
    this.#axis = axis;
    this.#onSelect = onSelect;
    root.addEventListener('keydown', (event) => this.#key(event));
    this.clear();
  }

  /** Shows no turn; `node` stands in its place. */
  clear(node = emptyState('No turn yet', 'Ask the agent something: each state, model call and tool attempt of the turn gets a bar here.')) {
    this.#turn = null;
    this.#forget();
    this.#root.replaceChildren(node);
    this.#axis.replaceChildren();
  }

  showAll(all) {
    this.#all = all;
    if (this.#turn) this.update(this.#turn, Date.now());
  }

  get count() {
    return this.#rows.size;
  }

  update(turn, now) {
    if (turn.turnId !== this.#turn?.turnId) this.#forget();
    this.#turn = turn;
    const atEnd = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight < NEAR_END;
    const grown = this.#lay(rowsOf(turn, { all: this.#all }), now);
    if (grown && atEnd && turn.status === 'RUNNING') this.#root.scrollTop = this.#root.scrollHeight;
  }

  /** Chooses the newest row of a state. */
  selectState(name) {
    const row = [...this.#rows.values()].findLast(({ row }) => row.state === name || row.label === name);
    if (row) this.#choose(row.row.id, { focus: false });
    return Boolean(row);
  }

  get selected() {
    return this.#rows.get(this.#selected)?.row ?? null;
  }

  #forget() {
    this.#rows.clear();
    this.#shown = [];
    this.#folded.clear();
    this.#selected = null;
    this.#scale = 0;
    this.#root.replaceChildren();
  }

  #lay(rows, now) {
    const began = this.#turn.startedAt;
    const end = Math.max(...rows.map((row) => (row.duration === null ? now : row.start + row.duration)), this.#turn.endedAt ?? 0, began + 1);
    const scale = SCALES.find((scale) => scale >= end - began) ?? Math.ceil((end - began) / LONG_SCALE) * LONG_SCALE;
    if (scale !== this.#scale) this.#drawAxis(scale);
    const wanted = new Set(rows.map((row) => row.id));
    for (const [id, kept] of this.#rows) if (!wanted.has(id)) { kept.element.remove(); this.#rows.delete(id); }
    let hiddenBelow = Infinity;
    let before = null;
    let grown = false;
    this.#shown = [];
    for (const row of rows) {
      let kept = this.#rows.get(row.id);
      if (!kept) {
        kept = this.#make(row);
        this.#rows.set(row.id, kept);
        grown = true;
      }
      kept.row = row;
      if (row.level <= hiddenBelow) hiddenBelow = Infinity;
      const hidden = row.level > hiddenBelow;
      if (!hidden && this.#folded.has(row.id)) hiddenBelow = row.level;
      kept.element.hidden = hidden;
      if (!hidden) this.#shown.push(row.id);
      this.#paint(kept, began, scale, now);
      const place = before ? before.nextSibling : this.#root.firstChild;
      if (place !== kept.element) this.#root.insertBefore(kept.element, place);
      before = kept.element;
    }
    if (!this.#shown.includes(this.#selected)) this.#focusable(this.#shown[0]);
    return grown;
  }

  #drawAxis(scale) {
    this.#scale = scale;
    this.#axis.replaceChildren(h('span', {}), h('span', {}), h('div', { class: 'ticks' }, [0, 0.25, 0.5, 0.75, 1].map((share) => h('span', { text: share ? tick(scale * share) : '0' }))));
  }

  #make(row) {
    const fold = h('span', { class: 'fold', 'aria-hidden': 'true' });
    const label = h('span', { class: 'span-label' });
    const note = h('span', { class: 'span-note' });
    const time = h('span', { class: 'span-time', role: 'gridcell' });
    const bar = h('span', { class: 'bar' });
    const work = h('span', { class: 'work' });
    const element = h('div', {
      class: 'span', role: 'row', tabindex: -1, 'aria-selected': 'false', 'data-id': row.id,
      on: { click: (event) => (event.target === fold ? this.#fold(row.id) : this.#choose(row.id)) },
    }, h('span', { class: 'span-name', role: 'gridcell' }, fold, label, note), time, h('span', { class: 'track', role: 'gridcell' }, bar, work));
    return { row, element, fold, label, note, time, bar, work };
  }

  #paint({ row, element, fold, label, note, time, bar, work }, began, scale, now) {
    element.style.setProperty('--level', row.level);
    setAttribute(element, 'data-status', row.status);
    setAttribute(element, 'data-kind', row.kind);
    setAttribute(element, 'aria-level', row.level);
    const open = row.hasChildren ? String(!this.#folded.has(row.id)) : null;
    setAttribute(element, 'aria-expanded', open);
    setText(fold, open === null ? '' : open === 'true' ? '▾' : '▸');
    setText(label, row.label);
    setText(note, row.note);
    setAttribute(element, 'title', row.note ? `${row.label} · ${row.note}` : row.label);
    const took = row.duration === null ? Math.max(0, now - row.start) : row.duration;
    setText(time, INSTANTS.has(row.kind) ? '' : duration(took));
    stretch(bar, row.start - began, took, scale);
    if (row.work) stretch(work, row.work.start - began, row.work.duration, scale);
    work.hidden = !row.work;
    setAttribute(element, 'aria-label', `${row.label}, ${row.note ? `${row.note}, ` : ''}${row.status}, ${duration(took)}`);
  }

  #fold(id, folded = !this.#folded.has(id)) {
    if (!this.#rows.get(id)?.row.hasChildren) return;
    if (folded) this.#folded.add(id);
    else this.#folded.delete(id);
    this.update(this.#turn, Date.now());
  }

  #choose(id, { focus = true } = {}) {
    this.#focusable(id);
    this.#selected = id;
    for (const [other, kept] of this.#rows) setAttribute(kept.element, 'aria-selected', other === id ? 'true' : 'false');
    const { element, row } = this.#rows.get(id);
    element.scrollIntoView({ block: 'nearest' });
    if (focus) element.focus({ preventScroll: true });
    this.#onSelect(row);
  }

  #focusable(id) {
    for (const [other, kept] of this.#rows) setAttribute(kept.element, 'tabindex', other === id ? 0 : -1);
  }

  #key(event) {
    const id = event.target.closest?.('[data-id]')?.dataset.id;
    if (!id) return;
    const at = this.#shown.indexOf(id);
    const open = this.#rows.get(id).row.hasChildren && !this.#folded.has(id);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.#shown.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (to !== undefined) this.#choose(this.#shown[Math.min(Math.max(to, 0), this.#shown.length - 1)]);
    else if (event.key === 'ArrowRight') open ? this.#choose(this.#shown[at + 1]) : this.#fold(id, false);
    else if (event.key === 'ArrowLeft') open ? this.#fold(id, true) : this.#choose(this.#parent(at));
    else if (event.key === 'Enter' || event.key === ' ') this.#choose(id);
    else return;
    event.preventDefault();
  }

  #parent(at) {
    const level = this.#rows.get(this.#shown[at]).row.level;
    return this.#shown.slice(0, at).findLast((id) => this.#rows.get(id).row.level < level) ?? this.#shown[at];
  }
}

function stretch(bar, start, length, scale) {
  bar.style.left = `${Math.min(99.5, Math.max(0, (start / scale) * 100))}%`;
  bar.style.width = `${Math.min(100, Math.max(0, (length / scale) * 100))}%`;
}
