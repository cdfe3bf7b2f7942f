// The page: who talks to whom, the turn that is shown, and what is read when.

import { invokeAgent, read, Watched } from './api.js';
import { ChatView } from './chat-view.js';
import { byId, emptyState, errorState, h, loadingState, replaceIfChanged, setAttribute, setText } from './dom.js';
import { NONE, count, dollars, duration, moment, short } from './format.js';
import { GraphView } from './graph-view.js';
import { showCircuits, showMemory, showSessions } from './panels.js';
import { PayloadView } from './payload-view.js';
import { SpansView } from './spans-view.js';
import { figuresOf, isOver, isTold } from './turn-model.js';
import { Views } from './views.js';

const LOOK_MS = 250;
const MOST_FAILED_LOOKS = 4;
const HIDDEN_LOOK_MS = 2000;
const WATCH_MS = 2000;
/** How long the last event of an ended turn may take: through the log, or through the function that records a failure. */
const LAST_EVENT_MS = 30_000;
const THEMES = ['system', 'light', 'dark'];

const page = {
  stack: null, agents: [], noActor: '-', turns: [],
  turn: null, following: null, awaited: null, conversation: 0,
  costs: new Map(),
};
const overviews = new Watched('overview');
const lists = new Watched('turns');

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
  clearTurn('reading', loadingState());
  const following = new AbortController();
  page.following = following;
  chat.mark(turnId);
  if (location.hash !== `#turn/${turnId}`) history.replaceState(null, '', `#turn/${turnId}`);
  try {
    await follow(turnId, following.signal);
  } catch (error) {
    if (error.name !== 'AbortError') clearTurn('unknown', errorState(`Turn ${short(turnId)} could not be read`, error, () => openTurn(turnId)));
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
    signal.throwIfAborted();
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
  announce(turn);
}

const runningVisit = (turn) => turn.visits.findLast((visit) => visit.outcome === 'running' && visit.type !== 'Map');

/** The receipt, as the turn's header keeps it. */
function showReceipt() {
  if (page.turn?.receipt) payload.showValue(page.turn.turnId, 'Receipt', page.turn.receipt);
}

/** Shows no turn, nothing of the one that was shown, and `node` where the spans are. */
function clearTurn(status, node) {
  page.following?.abort();
  page.turn = null;
  chat.mark(null);
  payload.clear();
  spans.clear(node);
  graph.update(null);
  graph.select(null);
  setText(byId('turn-status'), status);
  setAttribute(byId('turn-status'), 'data-status', 'none');
  for (const { value } of figureCells.values()) setText(value, NONE);
  setText(figureCells.get('dollars').label, 'Cost');
  setAttribute(figureCells.get('dollars').value.parentElement, 'title', null);
  setAttribute(figureCells.get('retries').value, 'data-status', null);
  byId('receipt').disabled = true;
  for (const id of ['span-count', 'graph-count', 'session-cost']) setText(byId(id), '');
  showTurnList();
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

function announce(turn) {
  const text = isOver(turn)
    ? `Turn ${turn.status.toLowerCase()} after ${duration(figuresOf(turn, Date.now()).duration)}`
    : `Turn runs: ${runningVisit(turn)?.name ?? 'starting'}`;
  if (text !== announced) setText(byId('announce'), text);
  announced = text;
}

// ---- The chat

async function send() {
  const text = byId('message').value;
  const chosen = agent();
  if (page.awaited || !chosen || !text.trim()) return;
  if (!byId('who').reportValidity()) return;
  const conversation = nextConversation();
  const exchange = chat.begin(text);
  awaitAnswer(exchange);
  byId('message').value = '';
  let known = false;
  const began = performance.now();
  try {
    const answer = await invokeAgent({
      agentId: chosen.agentId, aliasId: chosen.aliasId, sessionId: byId('session').value, actor: actor(), text, trace: byId('trace').checked,
      onTurn: (turnId) => {
        if (!turnId) return;
        known = true;
        exchange.turn(turnId);
        accompany(exchange, turnId);
        if (conversation === page.conversation) openTurn(turnId);
      },
    });
    exchange.answer(answer, performance.now() - began);
  } catch (error) {
    // Without a type it is not the turn that failed but the connection: how the turn ends, the stack's data tells.
    if (error.type || !known) exchange.fail(error.type || 'No answer', error.message);
  } finally {
    if (page.awaited === exchange) awaitAnswer(null);
    refreshActors();
  }
}

/** Which exchange a request of this page waits for; until then no other message can be sent in its conversation. */
function awaitAnswer(exchange) {
  page.awaited = exchange;
  showComposer();
}

function showComposer() {
  byId('send').disabled = Boolean(page.awaited) || !agent();
  setText(byId('composer-hint'), page.awaited ? 'Waits for the answer' : agent() ? 'Enter sends' : 'Choose an agent');
}

/** Tells an exchange how far its turn is; and how it ended, if no request of this page waits for that. */
async function accompany(exchange, turnId) {
  const watched = new Watched('turns', turnId);
  let turn = null;
  while (exchange.isOpen()) {
    const shown = page.turn?.turnId === turnId;
    try {
      turn = shown ? page.turn : await watched.next() ?? turn;
      const running = runningVisit(turn);
      if (!isOver(turn)) exchange.progress(running ? [running.name, running.toolName, running.step && `step ${running.step}`].filter(Boolean).join(' · ') : 'running');
      else if (page.awaited !== exchange) exchange.end(turn);
    } catch (error) {
      if (error.status === 404) exchange.fail('No turn', error.message);
      else exchange.progress('how far it is could not be read');
    }
    await new Promise((resolve) => { setTimeout(resolve, shown ? LOOK_MS : 4 * LOOK_MS); });
  }
}

async function openSession(sessionId) {
  byId('session').value = sessionId;
  remember();
  const conversation = nextConversation();
  awaitAnswer(null);
  if (!agent()) return greet();
  chat.show(loadingState());
  try {
    const entries = await readSession();
    if (conversation !== page.conversation) return;
    greet();
    addToChat(entries);
  } catch (error) {
    if (conversation !== page.conversation) return;
    chat.show(errorState('The session could not be read', error, () => openSession(sessionId)));
  }
}

async function readSession() {
  const session = await read('stores', agent().memoryStore, 'actors', actor() || page.noActor, 'sessions', byId('session').value);
  return session.entries;
}

function addToChat(entries) {
  for (const [turnId, exchange] of chat.add(entries)) accompany(exchange, turnId);
  chat.mark(page.turn?.turnId);
}

/** Turns of the conversation that others began, or this page before it was loaded again. */
async function addMissed() {
  const here = (turn) => turn.sessionId === byId('session').value && turn.agentId === agent()?.agentId && turn.actor === (actor() || page.noActor);
  if (page.awaited || !page.turns.some((turn) => here(turn) && !chat.has(turn.turnId))) return;
  const conversation = page.conversation;
  const entries = await readSession();
  if (conversation === page.conversation) addToChat(entries.filter((entry) => entry.turnId && !chat.has(entry.turnId)));
}

/** What the chat shows from now on; a conversation that is still being read is not shown any more. */
function nextConversation() {
  page.conversation += 1;
  return page.conversation;
}

function newSession() {
  nextConversation();
  awaitAnswer(null);
  byId('session').value = `console-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 6)}`;
  remember();
  greet();
}

function greet() {
  const chosen = agent();
  const tools = chosen?.tools.map((tool) => tool.name).join(', ');
  chat.greet('A new session', chosen
    ? `${chosen.name}, version ${chosen.version}. ${tools ? `Its tools: ${tools}.` : 'It has no tools.'}`
    : `${byId('agent').value} is not published any more. Choose another agent.`);
}

// ---- What stands around the turn

async function refreshTurns() {
  try {
    page.turns = await lists.next() ?? page.turns;
    showTurnList();
  } catch {
    setText(byId('announce'), 'The list of turns could not be read');
  }
}

function showTurnList() {
  const select = byId('turn-select');
  const shown = page.turn?.turnId ?? '';
  const listed = page.turns.slice(0, 50);
  replaceIfChanged(select, [listed, shown], () => {
    const options = listed.map((turn) => h('option', { value: turn.turnId, text: `${moment(turn.startedAt)}  ${turn.agentId ?? ''}  ${turn.actor === page.noActor ? '' : turn.actor}  ${turn.status.toLowerCase()}` }));
    if (shown && !listed.some((turn) => turn.turnId === shown)) options.unshift(h('option', { value: shown, text: `turn ${short(shown)}` }));
    if (!options.length) options.push(h('option', { value: '', text: 'No turn yet' }));
    if (!shown && listed.length) options.unshift(h('option', { value: '', text: 'Choose a turn' }));
    return options;
  });
  select.value = shown;
}

async function refreshActors() {
  const chosen = agent();
  if (!chosen) return;
  try {
    const actors = await read('stores', chosen.memoryStore, 'actors');
    if (chosen.memoryStore !== agent()?.memoryStore) return;
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
  const isLate = () => name !== actor() || chosen.memoryStore !== agent()?.memoryStore;
  try {
    if (view === 'memory') {
      const memory = name ? await read('stores', chosen.memoryStore, 'actors', name, 'memory') : null;
      if (!isLate()) showMemory(panel, name, memory, links);
    } else if (view === 'sessions') {
      const [sessions] = await Promise.all([read('stores', chosen.memoryStore, 'actors', name || page.noActor, 'sessions'), refreshTurns()]);
      if (!isLate()) showSessions(panel, { actor: name, sessions, turns: page.turns, current: byId('session').value }, links);
    } else showCircuits(panel, await read('circuits'), Date.now());
  } catch (error) {
    if (isLate()) return;
    panel.renderedFrom = null;
    panel.replaceChildren(errorState('This could not be read', error, () => refreshView(view)));
  }
}

/** Keeps up with what changes without this page: agent files, the turns of others, circuits, a stack that starts anew. */
async function watch() {
  const note = byId('circuits-note');
  for (;;) {
    try {
      const overview = await overviews.next();
      if (overview && overview.stack !== page.stack) await begin(overview);
      else if (overview) adopt(overview);
      await refreshTurns();
      await addMissed();
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
    await new Promise((resolve) => { setTimeout(resolve, document.hidden ? 5 * WATCH_MS : WATCH_MS); });
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
  byId('agent').addEventListener('change', () => { newSession(); showModel(); refreshActors(); refreshView(views.current); });
  byId('actor').addEventListener('change', () => { newSession(); refreshView(views.current); });
  byId('session').addEventListener('change', () => { if (byId('session').checkValidity()) openSession(byId('session').value); });
  byId('new-session').addEventListener('click', () => { newSession(); byId('message').focus(); });
  byId('turn-select').addEventListener('change', (event) => { if (event.target.value) openTurn(event.target.value); });
  byId('all-states').addEventListener('change', (event) => { spans.showAll(event.target.checked); setText(byId('span-count'), String(spans.count)); });
  byId('receipt').addEventListener('click', showReceipt);
  byId('circuits-note').addEventListener('click', () => views.show('circuits'));
  byId('skip').addEventListener('click', (event) => { event.preventDefault(); views.show('chat'); byId('message').focus(); });
  addEventListener('hashchange', openHash);
}

function openHash() {
  const turnId = /^#turn\/([0-9a-zA-Z_-]+)$/.exec(location.hash)?.[1];
  if (turnId && turnId !== page.turn?.turnId) openTurn(turnId);
  else if (!location.hash) clearTurn('no turn');
  else if (!turnId) clearTurn('unknown', errorState('Nothing has this address', new Error(`${location.hash} names nothing here. A turn has the address #turn/ID.`)));
}

/** What a reload of this tab, and a new tab, begin with: names only. What was said is read again from the stack. */
function remember() {
  const names = { stack: page.stack, agent: byId('agent').value, actor: actor(), session: byId('session').value };
  for (const [name, value] of Object.entries(names)) sessionStorage.setItem(name, value);
  localStorage.setItem('agent', names.agent);
  localStorage.setItem('actor', names.actor);
}

const kept = (name) => sessionStorage.getItem(name) ?? localStorage.getItem(name) ?? '';

/** Takes over what is published now. An agent that was chosen and is no longer published stays chosen: no other takes its place unseen. */
function adopt(overview) {
  Object.assign(page, { stack: overview.stack, agents: overview.agents, noActor: overview.noActor, model: overview.model });
  const select = byId('agent');
  const chosen = select.value;
  const options = page.agents.map((agent) => h('option', { value: agent.agentId, text: agent.name }));
  if (chosen && !agent()) options.push(h('option', { value: chosen, text: `${chosen} (not published any more)` }));
  select.replaceChildren(...options);
  if (chosen) select.value = chosen;
  showModel();
  showComposer();
  showNotice(overview.brokenAgentFiles);
  if (chat.isGreeting) greet();
}

function showNotice(broken) {
  const notice = byId('notice');
  replaceIfChanged(notice, broken, () => (broken ? [
    h('strong', { text: 'Agent files are broken: the version before stays in force.' }),
    h('ul', {}, broken.split('\n').map((line) => h('li', { text: line }))),
  ] : []));
  notice.hidden = !broken;
}

function showModel() {
  const model = page.model === 'rule' ? 'rule, which is not an LLM' : page.model;
  const text = agent() ? `Version ${agent().version} · model: ${model}` : `Model: ${model}`;
  setText(byId('model'), text);
  setAttribute(byId('model'), 'title', text);
}

/** Begins with what this tab had before a reload, as far as it was of this stack. */
async function begin(overview) {
  const session = sessionStorage.getItem('session');
  const isOfThisStack = sessionStorage.getItem('stack') === overview.stack;
  const known = kept('agent');
  const isKnown = overview.agents.some((agent) => agent.agentId === known) || (session && isOfThisStack);
  byId('agent').replaceChildren(...(isKnown ? [h('option', { value: known })] : []));
  byId('actor').value = kept('actor');
  page.costs.clear();
  adopt(overview);
  if (session && isOfThisStack) openSession(session);
  else newSession();
  if (session && !isOfThisStack) {
    chat.show(emptyState('The stack was started anew', `It keeps nothing: the session ${session} and its turns are gone. The next message begins a new session.`));
    history.replaceState(null, '', location.pathname);
  }
  graph.define(await read('definition'));
  graph.update(null);
  await Promise.all([refreshActors(), refreshTurns()]);
  openHash();
  refreshView(views.current);
}

async function start() {
  try {
    await begin(await overviews.next());
    watch();
    document.body.dataset.ready = 'yes';
  } catch (error) {
    chat.show(errorState('The console could not start', error, () => location.reload()));
  }
}

theme(false);
listen();
start();
