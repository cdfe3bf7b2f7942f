// The conversation: what was asked, what was answered, and what became of each turn.

import { emptyState, h, setText } from './dom.js';
import { duration, moment, short } from './format.js';

const NEAR_END = 60;

export class ChatView {
  #log;
  #onTurn;
  #entries = new Map();
  #isGreeting = false;

  /** `onTurn(turnId)` is called when a turn of the conversation is chosen. */
  constructor(log, onTurn) {
    this.#log = log;
    this.#onTurn = onTurn;
  }

  /** Shows nothing but a hint of what can be asked. */
  greet(title, text) {
    this.show(emptyState(title, text));
    this.#isGreeting = true;
  }

  /** Whether nothing is said yet. */
  get isGreeting() {
    return this.#isGreeting;
  }

  /** Shows a node in place of the conversation. */
  show(node) {
    this.#entries.clear();
    this.#isGreeting = false;
    this.#log.replaceChildren(node);
  }

  /** Whether a turn is among what is shown. */
  has(turnId) {
    return this.#entries.has(turnId);
  }

  /** Adds entries of a stored conversation, oldest first; returns the exchanges that still run, by their turns. */
  add(entries) {
    const running = new Map();
    for (const entry of entries) {
      if (entry.payload) {
        this.#append(h('div', { class: 'exchange' }, h('p', { class: 'meta', text: `event ${entry.eventId} · ${moment(entry.at)}` }), h('p', { class: 'said', text: JSON.stringify(entry.payload) })));
        continue;
      }
      const exchange = this.begin(entry.inputText ?? '', entry.at);
      exchange.turn(entry.turnId);
      if (entry.status === 'RUNNING') running.set(entry.turnId, exchange);
      else exchange.end(entry);
    }
    return running;
  }

  /** A new exchange with the user's text; returns what fills in the rest. */
  begin(text, at = Date.now()) {
    const progress = h('span', { text: 'starting' });
    const open = h('button', { type: 'button', class: 'link', text: 'turn', disabled: true });
    const meta = h('p', { class: 'meta' }, h('span', { text: `${moment(at)} · ` }), open, ' · ', progress);
    const body = h('div', { class: 'answer', 'data-status': 'running' }, h('p', { class: 'said dots', 'aria-hidden': 'true', text: '…' }));
    const exchange = h('article', { class: 'exchange' }, h('p', { class: 'asked', text }), body, meta);
    this.#append(exchange);
    const isOpen = () => body.dataset.status === 'running';
    const settle = (status, said, ...content) => {
      if (!isOpen()) return;
      setText(progress, said);
      this.#keepEnd(() => {
        body.dataset.status = status;
        body.replaceChildren(...content);
      });
    };
    const answer = (text, ms) => settle('done', typeof ms === 'number' ? `answered in ${duration(ms)}` : 'answered', h('p', { class: 'said', text }));
    const fail = (type, message) => settle('failed', 'failed', h('p', { class: 'failure-type', text: type || 'Error' }), h('p', { class: 'said', text: message }));
    return {
      /** Whether it is still part of the conversation and has no answer yet. Whatever comes first ends it: nothing later changes it. */
      isOpen: () => isOpen() && exchange.isConnected,
      answer,
      fail,
      progress: (text) => { if (isOpen()) setText(progress, text); },
      /** Ends it as the stack's data has its turn. */
      end: ({ status, answer: text, failure, startedAt, endedAt }) => {
        if (typeof text === 'string') answer(text, endedAt && endedAt - startedAt);
        else fail(failure?.error ?? status, failure?.cause ?? 'The turn left no answer.');
      },
      turn: (turnId) => {
        if (!turnId) return;
        this.#entries.set(turnId, exchange);
        open.disabled = false;
        setText(open, `turn ${short(turnId)}`);
        open.setAttribute('aria-label', `Show turn ${turnId}`);
        open.addEventListener('click', () => this.#onTurn(turnId));
        exchange.dataset.turn = turnId;
      },
    };
  }

  /** Marks the exchange whose turn is shown beside it. */
  mark(turnId) {
    for (const [id, exchange] of this.#entries) exchange.toggleAttribute('data-shown', id === turnId);
  }

  #append(element) {
    this.#isGreeting = false;
    this.#log.querySelector(':scope > .empty')?.remove();
    this.#log.append(element);
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** A change at the end stays in view, unless the person has scrolled away from there. */
  #keepEnd(change) {
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_END;
    change();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }
}
