// The conversation: what was asked, what was answered, and what became of each turn.

import { h, setText } from './dom.js';
import { clock, duration, moment, short } from './format.js';

const NEAR_END = 60;

export class ChatView {
  #log;
  #onTurn;
  #entries = new Map();

  /** `onTurn(turnId)` is called when a turn of the conversation is chosen. */
  constructor(log, onTurn) {
    this.#log = log;
    this.#onTurn = onTurn;
  }

  /** Shows nothing but a hint. */
  clear(title, text) {
    this.#entries.clear();
    this.#log.replaceChildren(h('div', { class: 'empty' }, h('p', { class: 'empty-title', text: title }), h('p', { text })));
  }

  fail(node) {
    this.#entries.clear();
    this.#log.replaceChildren(node);
  }

  /** Shows a stored conversation, oldest first. */
  load(entries) {
    this.#entries.clear();
    this.#log.replaceChildren();
    for (const entry of entries) {
      if (entry.payload) {
        this.#append(h('div', { class: 'exchange' }, h('p', { class: 'meta', text: `event ${entry.eventId} · ${moment(entry.at)}` }), h('p', { class: 'said', text: JSON.stringify(entry.payload) })));
        continue;
      }
      const exchange = this.begin(entry.inputText ?? '', entry.at);
      exchange.turn(entry.turnId);
      if (entry.answer !== null && entry.answer !== undefined) exchange.answer(entry.answer);
      else if (entry.failure) exchange.fail(entry.failure.error, entry.failure.cause);
      else if (entry.status === 'RUNNING') exchange.progress('still running');
      else exchange.fail(entry.status, 'The turn left no answer.');
    }
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** A new exchange with the user's text; returns what fills in the rest. */
  begin(text, at = Date.now()) {
    if (this.#log.querySelector(':scope > .empty')) this.#log.replaceChildren();
    const progress = h('span', { text: 'starting' });
    const open = h('button', { type: 'button', class: 'link', text: 'turn', disabled: true });
    const meta = h('p', { class: 'meta' }, h('span', { text: `${clock(at)} · ` }), open, ' · ', progress);
    const body = h('div', { class: 'answer', 'data-status': 'running' }, h('p', { class: 'said dots', 'aria-hidden': 'true', text: '…' }));
    const exchange = h('article', { class: 'exchange' }, h('p', { class: 'asked', text }), body, meta);
    this.#append(exchange);
    const settle = (status, ...content) => this.#keepEnd(() => {
      body.dataset.status = status;
      body.replaceChildren(...content);
    });
    return {
      element: exchange,
      turn: (turnId) => {
        if (!turnId) return;
        this.#entries.set(turnId, exchange);
        open.disabled = false;
        setText(open, `turn ${short(turnId)}`);
        open.setAttribute('aria-label', `Show turn ${turnId}`);
        open.addEventListener('click', () => this.#onTurn(turnId));
        exchange.dataset.turn = turnId;
        setText(progress, '');
      },
      progress: (text) => setText(progress, text),
      answer: (text, ms) => {
        settle('done', h('p', { class: 'said', text }));
        setText(progress, ms === undefined ? 'answered' : `answered in ${duration(ms)}`);
      },
      fail: (type, message) => {
        settle('failed', h('p', { class: 'failure-type', text: type || 'Error' }), h('p', { class: 'said', text: message }));
        setText(progress, 'failed');
      },
    };
  }

  /** Marks the exchange whose turn is shown beside it. */
  mark(turnId) {
    for (const [id, exchange] of this.#entries) exchange.toggleAttribute('data-shown', id === turnId);
  }

  #append(element) {
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
