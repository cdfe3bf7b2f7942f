// The page: who talks to whom, the turn that is shown, and what is read when.

import { invokeAgent, read, Watched } from './api.js';
import { ChatView } from './chat-view.js';
import { byId, errorState, h, loadingState, setAttribute, setText } from './dom.js';
import { count, dollars, duration, moment, short } from './format.js';
import { GraphView } from './graph-view.js';
import { showCircuits, showMemory, showSessions } from './panels.js';
import { PayloadView } from './payload-view.js';
import { SpansView } from './spans-view.js';
import { figuresOf, isOver, isTold } from './turn-model.js';
import { Views } from './views.js';

const LOOK_MS = 250;
const MOST_FAILED_LOOKS = 4;
const HIDDEN_LOOK_MS = 2000;
const CIRCUITS_MS = 2000;
/** How long the last event of an ended turn may take: through the log, or through the function that records a failure. */
const LAST_EVENT_MS = 30_000;
const THEMES = ['system', 'light', 'dark'];

const page = {
  agents: [], noActor: '-',
  turn: null, following: null, exchange: null, sending: false, conversation: 0,
  costs: new Map(),
};

const payload = new PayloadView(byId('payload'), byId('payload-title'));
const spans = new SpansView(byId('spans'), byId('axis'), (row) => {
  payload.show(page.turn, row);
  const name = stateOf(row);
  if (name) graph.select(name);
});
const graph = new GraphView(byId('graph'), (name) => {
  graph.select(name);
  if (!page.turn) return;
  if (!spans.selectState(name) && !byId('all-states').checked) {
    byId('all-states').checked = true;
    spans.showAll(true);
    spans.selectState(name);
  }
});
const chat = new ChatView(byId('log'), (turnId) => { views.show('turn'); openTurn(turnId); });
const views = new Views(refreshView);

function stateOf(row) {
  return page.turn?.visits.find((visit) => visit.id === row.source.visit)?.name ?? (row.kind === 'model' ? 'Invoke Model' : null);
}

function actor() {
  return byId('actor').value.trim();
}

function agent() {
  return page.agents.find((known) => known.agentId === byId('agent').value);
}

// ---- The turn that is shown

async function openTurn(turnId) {
  page.following?.abort();
  const following = new AbortController();
  page.following = following;
  page.turn = null;
  payload.clear();
  chat.mark(turnId);
  if (location.hash !== `#turn/${turnId}`) history.replaceState(null, '', `#turn/${turnId}`);
  try {
    await follow(turnId, following.signal);
  } catch (error) {
    if (error.name !== 'AbortError') failTurn(error, turnId);
  }
}

async function follow(turnId, signal) {
  const watched = new Watched('turns', turnId);
  let drawn = false;
  let listed = false;
  let overSince = null;
  for (;;) {
    const began = performance.now();
    const turn = await persistently(() => watched.next(signal), signal);
    if (turn) page.turn = turn;
    if (!drawn && page.turn.execution) {
      graph.define(await read('turns', turnId, 'definition'));
      drawn = true;
    }
    signal.throwIfAborted();
    if (!listed) refreshTurns();
    listed = true;
    showTurn(page.turn);
    const isFirstAfterEnd = isOver(page.turn) && overSince === null;
    if (isFirstAfterEnd) overSince = began;
    const waited = overSince === null ? 0 : performance.now() - overSince;
    const isComplete = overSince !== null && (isTold(page.turn) || waited > LAST_EVENT_MS);
    if (isFirstAfterEnd || isComplete) {
      refreshTurns();
      refreshView(views.current);
    }
    if (isComplete) return;
    const wait = Math.max(document.hidden ? HIDDEN_LOOK_MS : LOOK_MS, 2 * (performance.now() - began), waited / 4);
    await pause(wait, signal);
  }
}

/** Asks again when a look at a running turn fails; what is not there at all is told at once. */
async function persistently(look, signal) {
  for (let failures = 1; ; failures += 1) {
    try {
      return await look();
    } catch (error) {
      if (error.name === 'AbortError' || error.status === 404 || failures === MOST_FAILED_LOOKS) throw error;
      await pause(LOOK_MS * 2 ** failures, signal);
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}

function showTurn(turn) {
  const now = Date.now();
  graph.update(turn);
  spans.update(turn, now);
  if (spans.selected) payload.show(turn, spans.selected);
  const status = byId('turn-status');
  setText(status, turn.status.toLowerCase());
  setAttribute(status, 'data-status', turn.status.toLowerCase());
  showFigures(turn, figuresOf(turn, now));
  byId('receipt').disabled = !turn.receipt;
  setAttribute(byId('receipt'), 'title', turn.receipt ? 'All that the turn used' : isOver(turn) ? 'This turn has no receipt' : 'The receipt comes with the end of the turn');
  setText(byId('span-count'), String(spans.count));
  setText(byId('graph-count'), turn.execution ? `${count(turn.execution.transitions)} transitions` : '');
  const running = turn.visits.findLast((visit) => visit.outcome === 'running' && visit.type !== 'Map');
  if (running && page.exchange?.element.dataset.turn === turn.turnId) page.exchange.progress([running.name, running.toolName, running.step && `step ${running.step}`].filter(Boolean).join(' · '));
  announce(turn, running);
}

/** The receipt, as the turn's header keeps it. */
function showReceipt() {
  if (page.turn?.receipt) payload.showValue(page.turn.turnId, 'Receipt', page.turn.receipt);
}

function failTurn(error, turnId) {
  graph.update(null);
  byId('spans').replaceChildren(errorState(`Turn ${short(turnId)} could not be read`, error, () => openTurn(turnId)));
  setText(byId('turn-status'), 'unknown');
  setAttribute(byId('turn-status'), 'data-status', 'none');
}

const FIGURES = [
  ['duration', 'Duration', duration], ['steps', 'Model calls', count], ['calls', 'Tool calls', count], ['retries', 'Retries', count],
  ['transitions', 'Transitions', count], ['inputTokens', 'Tokens in', count], ['outputTokens', 'Tokens out', count], ['dollars', 'Cost', dollars],
];
const figureCells = new Map(FIGURES.map(([name, label]) => [name, { value: h('dd', { text: '–' }), label: h('dt', { text: label }) }]));
byId('figures').append(...[...figureCells.values()].map(({ value, label }) => h('div', {}, label, value)));

function costNote(turn, figures) {
  if (figures.dollarsOf === 'models') return 'Estimated for the model calls so far; the receipt comes with the end of the turn';
  if (figures.dollarsOf === 'none') return isOver(turn) ? 'This turn has no receipt: what it cost is not known here' : 'The receipt comes with the end of the turn';
  return [`Estimated by ${turn.receipt.prices}`, ...turn.receipt.incomplete.map((missing) => `not in it: ${missing}`)].join('; ');
}

const money = (value, isAtLeast) => `${isAtLeast ? '≥ ' : ''}${dollars(value)}`;

function showFigures(turn, figures) {
  for (const [name, , format] of FIGURES) setText(figureCells.get(name).value, format(figures[name]));
  const cost = figureCells.get('dollars');
  setText(cost.value, money(figures.dollars, figures.isAtLeast));
  setText(cost.label, figures.dollarsOf === 'models' ? 'Cost so far' : 'Cost');
  setAttribute(cost.value.parentElement, 'title', costNote(turn, figures));
  setAttribute(figureCells.get('retries').value, 'data-status', figures.retries ? 'caught' : null);
  page.costs.set(turn.turnId, { session: turn.sessionId, tokens: figures.inputTokens + figures.outputTokens, ...figures });
  const here = [...page.costs.values()].filter((cost) => cost.session === turn.sessionId);
  const priced = here.filter((cost) => cost.dollars !== null);
  const isAtLeast = priced.length < here.length || priced.some((cost) => cost.isAtLeast);
  const sum = (field) => here.reduce((all, cost) => all + (cost[field] ?? 0), 0);
  setText(byId('session-cost'), `Seen of this session: ${count(sum('tokens'))} tokens, ${priced.length ? money(sum('dollars'), isAtLeast) : 'no receipts'}`);
}

let announced = '';

function announce(turn, running) {
  const text = isOver(turn)
    ? `Turn ${turn.status.toLowerCase()} after ${duration(figuresOf(turn, Date.now()).duration)}`
    : `Turn runs: ${running?.name ?? 'starting'}`;
  if (text !== announced) setText(byId('announce'), text);
  announced = text;
}

// ---- The chat

async function send() {
  const text = byId('message').value;
  if (page.sending || !text.trim()) return;
  if (!byId('who').reportValidity()) return;
  const chosen = agent();
  if (!chosen) return;
  page.sending = true;
  nextConversation();
  byId('send').disabled = true;
  const exchange = chat.begin(text);
  page.exchange = exchange;
  byId('message').value = '';
  const began = performance.now();
  try {
    const answer = await invokeAgent({
      agentId: chosen.agentId, aliasId: chosen.aliasId, sessionId: byId('session').value, actor: actor(), text, trace: byId('trace').checked,
      onTurn: (turnId) => {
        exchange.turn(turnId);
        if (turnId) openTurn(turnId);
      },
    });
    exchange.answer(answer, performance.now() - began);
  } catch (error) {
    exchange.fail(error.type || 'No answer', error.message);
  } finally {
    page.sending = false;
    byId('send').disabled = false;
    refreshActors();
  }
}

async function openSession(sessionId) {
  byId('session').value = sessionId;
  const chosen = agent();
  if (!chosen) return;
  const conversation = nextConversation();
  chat.fail(loadingState());
  try {
    const session = await read('stores', chosen.memoryStore, 'actors', actor() || page.noActor, 'sessions', sessionId);
    if (conversation !== page.conversation) return;
    if (session.entries.length) chat.load(session.entries);
    else greet();
    chat.mark(page.turn?.turnId);
  } catch (error) {
    if (conversation !== page.conversation) return;
    chat.fail(errorState('The session could not be read', error, () => openSession(sessionId)));
  }
}

/** What the chat shows from now on; a conversation that is still being read is not shown any more. */
function nextConversation() {
  page.conversation += 1;
  return page.conversation;
}

function newSession() {
  nextConversation();
  byId('session').value = `console-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 6)}`;
  greet();
}

function greet() {
  const chosen = agent();
  const tools = chosen?.tools.map((tool) => tool.name).join(', ');
  chat.clear('A new session', chosen ? `${chosen.name}, version ${chosen.version}. ${tools ? `Its tools: ${tools}.` : 'It has no tools.'}` : '');
}

// ---- What stands around the turn

async function refreshTurns() {
  try {
    const turns = await read('turns');
    const select = byId('turn-select');
    const shown = page.turn?.turnId ?? '';
    const listed = turns.slice(0, 50);
    const options = listed.map((turn) => h('option', { value: turn.turnId, text: `${moment(turn.startedAt)}  ${turn.agentId ?? ''}  ${turn.actor === page.noActor ? '' : turn.actor}  ${turn.status.toLowerCase()}` }));
    if (shown && !listed.some((turn) => turn.turnId === shown)) options.unshift(h('option', { value: shown, text: `turn ${short(shown)}` }));
    if (!options.length) options.push(h('option', { value: '', text: 'No turn yet' }));
    if (!shown && listed.length) options.unshift(h('option', { value: '', text: 'Choose a turn' }));
    select.replaceChildren(...options);
    select.value = shown;
  } catch {
    setText(byId('announce'), 'The list of turns could not be read');
  }
}

async function refreshActors() {
  const chosen = agent();
  if (!chosen) return;
  try {
    const actors = await read('stores', chosen.memoryStore, 'actors');
    byId('actors').replaceChildren(...actors.map((name) => h('option', { value: name })));
  } catch {
    byId('actors').replaceChildren(); // suggestions only: the field works without them
  }
}

const links = {
  onTurn: (turnId) => { views.show('turn'); openTurn(turnId); },
  onSession: (sessionId) => { views.show('chat'); openSession(sessionId); },
};

async function refreshView(view) {
  const chosen = agent();
  const panel = byId(`panel-${view}`);
  if (!chosen || !['memory', 'sessions', 'circuits'].includes(view)) return;
  if (!panel.childElementCount) panel.replaceChildren(loadingState());
  const name = actor();
  try {
    if (view === 'memory') showMemory(panel, name, name ? await read('stores', chosen.memoryStore, 'actors', name, 'memory') : null, links);
    else if (view === 'sessions') {
      const [sessions, turns] = await Promise.all([read('stores', chosen.memoryStore, 'actors', name || page.noActor, 'sessions'), read('turns')]);
      showSessions(panel, { actor: name, sessions, turns, current: byId('session').value }, links);
    } else showCircuits(panel, await read('circuits'), Date.now());
  } catch (error) {
    panel.renderedFrom = null;
    panel.replaceChildren(errorState('This could not be read', error, () => refreshView(view)));
  }
}

async function watchCircuits() {
  const note = byId('circuits-note');
  for (;;) {
    try {
      const circuits = await read('circuits');
      const open = circuits.filter((circuit) => circuit.state !== 'CLOSED');
      setText(note, open.length ? `${open.length} open ${open.length === 1 ? 'circuit' : 'circuits'}` : 'Circuits closed');
      setAttribute(note, 'data-state', open.length ? 'open' : 'closed');
      setAttribute(note, 'title', open.map((circuit) => `${circuit.agentId} ${circuit.tool}`).join(', '));
      if (views.current === 'circuits') showCircuits(byId('panel-circuits'), circuits, Date.now());
      if (views.current === 'memory' || views.current === 'sessions') refreshView(views.current);
    } catch {
      setText(note, 'Not connected');
      setAttribute(note, 'data-state', 'unknown');
    }
    await new Promise((resolve) => { setTimeout(resolve, document.hidden ? 5 * CIRCUITS_MS : CIRCUITS_MS); });
  }
}

// ---- The start

function theme(next) {
  const current = localStorage.getItem('theme') ?? 'system';
  const chosen = next ? THEMES[(THEMES.indexOf(current) + 1) % THEMES.length] : current;
  localStorage.setItem('theme', chosen);
  if (chosen === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  setText(byId('theme'), `Theme: ${chosen}`);
}

function listen() {
  byId('theme').addEventListener('click', () => theme(true));
  byId('who').addEventListener('submit', (event) => event.preventDefault());
  byId('composer').addEventListener('submit', (event) => { event.preventDefault(); send(); });
  byId('message').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  byId('agent').addEventListener('change', () => { remember(); showModel(); newSession(); refreshActors(); refreshView(views.current); });
  byId('actor').addEventListener('change', () => { remember(); newSession(); refreshView(views.current); });
  byId('session').addEventListener('change', () => { if (byId('session').checkValidity()) openSession(byId('session').value); });
  byId('new-session').addEventListener('click', () => { newSession(); byId('message').focus(); });
  byId('turn-select').addEventListener('change', (event) => { if (event.target.value) openTurn(event.target.value); });
  byId('all-states').addEventListener('change', (event) => { spans.showAll(event.target.checked); setText(byId('span-count'), String(spans.count)); });
  byId('receipt').addEventListener('click', showReceipt);
  byId('circuits-note').addEventListener('click', () => views.show('circuits'));
  addEventListener('hashchange', openHash);
}

function openHash() {
  const turnId = /^#turn\/([0-9a-zA-Z_-]+)$/.exec(location.hash)?.[1];
  if (turnId && turnId !== page.turn?.turnId) openTurn(turnId);
}

function remember() {
  localStorage.setItem('agent', byId('agent').value);
  localStorage.setItem('actor', actor());
}

function showModel() {
  setText(byId('model'), page.model === 'rule' ? 'Model: rule, which is not an LLM' : `Model: ${page.model}`);
}

async function start() {
  try {
    const overview = await read('overview');
    page.agents = overview.agents;
    page.noActor = overview.noActor;
    page.model = overview.model;
    byId('agent').replaceChildren(...overview.agents.map((agent) => h('option', { value: agent.agentId, text: agent.name })));
    const known = localStorage.getItem('agent');
    if (overview.agents.some((agent) => agent.agentId === known)) byId('agent').value = known;
    byId('actor').value = localStorage.getItem('actor') ?? '';
    showModel();
    newSession();
    graph.define(await read('definition'));
    graph.update(null);
    await Promise.all([refreshActors(), refreshTurns()]);
    openHash();
    refreshView(views.current);
    watchCircuits();
    document.body.dataset.ready = 'yes';
  } catch (error) {
    chat.fail(errorState('The console could not start', error, () => location.reload()));
  }
}

theme(false);
listen();
start();
