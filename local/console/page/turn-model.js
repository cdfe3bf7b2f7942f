// What a turn, as the console's data has it, means: states and edges for the graph, spans for the waterfall, figures.
// Pure: no document.

const ROUTING = new Set(['Choice', 'Pass', 'Succeed', 'Fail']);

/** By state: how often it was visited, what is running, what failed, how often it was tried again. */
export function statesOf(turn) {
  const states = new Map();
  for (const visit of turn?.visits ?? []) {
    const state = states.get(visit.name) ?? { visits: 0, running: 0, failures: 0, retries: 0, outcome: '', errors: new Set() };
    const failed = visit.tries.filter((attempt) => attempt.error);
    state.visits += 1;
    state.running += visit.outcome === 'running' ? 1 : 0;
    state.failures += failed.length;
    state.retries += Math.max(0, visit.tries.length - 1) + (visit.attempt > 1 ? 1 : 0);
    for (const attempt of failed) state.errors.add(attempt.error);
    state.outcome = state.outcome === 'failed' ? 'failed' : visit.outcome;
    states.set(visit.name, state);
  }
  return states;
}

/** `Map` and its running and ended iterations, of the newest visit of a Map. */
export function callsOf(turn, name) {
  const box = turn?.visits.findLast((visit) => visit.name === name);
  if (!box) return null;
  const inside = turn.visits.filter((visit) => visit.parent === box.id && visit.iteration !== null);
  const all = new Set(inside.map((visit) => visit.iteration));
  const running = new Set(inside.filter((visit) => visit.outcome === 'running').map((visit) => visit.iteration));
  return { calls: all.size, running: running.size };
}

/** How often each edge was taken, by `from\nto`. */
export function edgesTaken(turn) {
  const taken = new Map();
  const last = new Map();
  for (const visit of turn?.visits ?? []) {
    const place = `${visit.parent}/${visit.iteration}`;
    const before = last.get(place);
    if (before) taken.set(`${before}\n${visit.name}`, (taken.get(`${before}\n${visit.name}`) ?? 0) + 1);
    last.set(place, visit.name);
  }
  return taken;
}

export function isOver(turn) {
  return Boolean(turn) && turn.status !== 'RUNNING' && turn.execution?.status !== 'RUNNING';
}

/** Whether the last event of an ended turn is there. */
export function isTold(turn) {
  return turn.events.some((event) => event.type === 'FINAL_RESPONSE' || event.type === 'TURN_FAILED');
}

/**
 * The turn's figures. Dollars come from the receipt, or before there is one from what the trace events say of each model
 * call; `isAtLeast` says that a part of them has no price.
 */
export function figuresOf(turn, now) {
  if (!turn) return null;
  const ended = turn.endedAt ?? (isOver(turn) ? turn.startedAt : now);
  const usage = turn.receipt?.tokens ?? total(turn.steps.map((step) => step.usage));
  return {
    duration: ended - turn.startedAt,
    steps: turn.steps.length,
    calls: turn.steps.reduce((sum, step) => sum + step.toolUses.length, 0),
    retries: [...statesOf(turn).values()].reduce((sum, state) => sum + state.retries, 0),
    transitions: turn.receipt?.stateTransitions ?? turn.execution?.transitions ?? null,
    inputTokens: usage.inputTokens ?? 0,
    outputTokens: usage.outputTokens ?? 0,
    ...costOf(turn),
  };
}

function costOf(turn) {
  if (turn.receipt) {
    const { total: all, ...parts } = turn.receipt.dollars;
    const isAtLeast = all === null || turn.receipt.incomplete.length > 0;
    return { dollars: all ?? sumOf(Object.values(parts)), isAtLeast, dollarsOf: 'receipt' };
  }
  const calls = turn.events.filter((event) => event.type === 'MODEL_INVOCATION' && event.status === 'SUCCESS');
  const priced = calls.filter((event) => typeof event.estimatedDollars === 'number');
  if (!priced.length) return { dollars: null, isAtLeast: false, dollarsOf: 'none' };
  return { dollars: sumOf(priced.map((event) => event.estimatedDollars)), isAtLeast: priced.length < calls.length, dollarsOf: 'models' };
}

const sumOf = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0);

function total(usages) {
  const sum = {};
  for (const usage of usages) for (const [name, value] of Object.entries(usage ?? {})) sum[name] = (sum[name] ?? 0) + value;
  return sum;
}

/**
 * The rows of the waterfall, a parent before its children: `{id, level, label, state, note, status, start, duration, work,
 * kind, hasChildren, source}`. `duration` is null while it runs; `work` is the part that the model or the tool itself
 * took, `{start, duration}`; `source` says where the payload is: `{visit, step, events}`.
 */
export function rowsOf(turn, { all = false } = {}) {
  if (!turn) return [];
  const index = indexOf(turn);
  const rows = [];
  for (const visit of turn.visits) {
    if (visit.parent === null && (all || !ROUTING.has(visit.type))) rows.push(...stateRows(visit, 1, index, all));
  }
  for (const event of turn.events.filter((event) => event.type === 'TURN_FAILED')) rows.push(eventRow(event, 1, turn));
  return rows;
}

function indexOf(turn) {
  const inside = new Map();
  for (const visit of turn.visits) {
    if (visit.parent === null) continue;
    if (!inside.has(visit.parent)) inside.set(visit.parent, []);
    inside.get(visit.parent).push(visit);
  }
  const visitsOfStep = new Map();
  for (const visit of turn.visits) if (visit.name === 'Invoke Model') visitsOfStep.set(visit.step, visit.id);
  return { turn, inside, lastVisitOfStep: visitsOfStep };
}

function stateRows(visit, level, index, all) {
  const { turn } = index;
  const row = {
    id: `visit-${visit.id}`, level, kind: visit.type === 'Wait' ? 'wait' : ROUTING.has(visit.type) ? 'routing' : 'state',
    label: visit.name, state: visit.name, note: noteOf(visit), status: visit.outcome,
    start: visit.enteredAt, duration: visit.durationMs, source: { visit: visit.id, events: [] },
  };
  const children = [
    ...triesRows(visit, level + 1),
    ...modelRows(visit, level + 1, index),
    ...memoryRows(visit, level + 1, turn),
    ...callRows(visit, level + 1, index, all),
  ];
  row.hasChildren = children.length > 0;
  if (visit.type === 'Map') row.note = plural(new Set((index.inside.get(visit.id) ?? []).map((inner) => inner.iteration)).size);
  return [row, ...children];
}

const plural = (calls) => `${calls} ${calls === 1 ? 'call' : 'calls'}${calls > 1 ? ' in parallel' : ''}`;

function noteOf(visit) {
  const failed = visit.tries.filter((attempt) => attempt.error);
  const step = visit.step ? `step ${visit.step}` : '';
  if (visit.outcome === 'failed' || visit.outcome === 'caught') return join(step, failed.at(-1)?.error ?? visit.outcome);
  return step;
}

/** A state that its own Retry repeated. */
function triesRows(visit, level) {
  if (visit.tries.length < 2) return [];
  return visit.tries.map((attempt, index) => ({
    id: `visit-${visit.id}-try-${index + 1}`, level, kind: 'try', hasChildren: false,
    label: `Try ${index + 1}`, note: attempt.error ?? '', status: attempt.error ? 'failed' : 'succeeded',
    start: attempt.startedAt, duration: attempt.durationMs, source: { visit: visit.id, try: index, events: [] },
  }));
}

/** The calls of a model within a visit: as its trace events tell them, without a trace as the journal does. */
function modelRows(visit, level, { turn, lastVisitOfStep }) {
  if (visit.name !== 'Invoke Model') return [];
  const left = visit.durationMs === null ? Infinity : visit.enteredAt + visit.durationMs + 5;
  const events = turn.events.filter((event) => event.type === 'MODEL_INVOCATION'
    && event.step === visit.step && Date.parse(event.timestamp) >= visit.enteredAt - 5 && Date.parse(event.timestamp) <= left);
  if (events.length) return events.map((event) => modelRow(event, level, visit, turn));
  const step = turn.steps.find((step) => step.step === visit.step);
  if (!step || lastVisitOfStep.get(step.step) !== visit.id) return [];
  return [{
    id: `step-${step.step}`, level, kind: 'model', hasChildren: false, label: shortModel(step.model), note: tokens(step.usage),
    status: 'succeeded', start: step.recordedAt - step.latencyMs, duration: step.latencyMs, source: { step: step.step, events: [] },
  }];
}

function modelRow(event, level, visit, turn) {
  const row = eventRow(event, level, turn);
  if (event.status !== 'STARTED') return row;
  if (visit.durationMs === null) return { ...row, duration: null };
  return { ...row, status: 'failed', note: 'no answer came', duration: visit.enteredAt + visit.durationMs - row.start };
}

/** What a state read and wrote of memory, and the answer; within a tool call only what this call did. */
function memoryRows(visit, level, turn) {
  const ofTool = visit.name === 'Invoke Tool' ? MEMORY_TOOLS[visit.toolName] : undefined;
  if (!ofTool && !['Load Memory', 'Write Memory'].includes(visit.name)) return [];
  const types = ofTool ? [ofTool] : ['MEMORY_RETRIEVAL', 'MEMORY_WRITE', 'FINAL_RESPONSE'];
  const left = visit.durationMs === null ? Infinity : visit.enteredAt + visit.durationMs + 5;
  return turn.events
    .filter((event) => types.includes(event.type) && !(ofTool && isOfOtherCall(event, visit))
      && Date.parse(event.timestamp) >= visit.enteredAt - 5 && Date.parse(event.timestamp) <= left)
    .map((event) => eventRow(event, level, turn));
}

/** A memory event's key in the table ends with the tool use's id and the attempt; one of the log has only its time. */
const isOfOtherCall = (event, visit) => !event.id.includes('#log#')
  && !event.id.endsWith(`#${encodeURIComponent(`${visit.toolUseId}/${visit.attempt}`)}`);

/** The parallel calls of a Map, each with its attempts; a call that took one attempt is one row. */
function callRows(box, level, index, all) {
  const inner = index.inside.get(box.id) ?? [];
  const rows = [];
  for (const iteration of [...new Set(inner.map((visit) => visit.iteration))].sort((a, b) => a - b)) {
    const visits = inner.filter((visit) => visit.iteration === iteration);
    const named = visits.find((visit) => visit.toolName);
    const shown = visits.filter((visit) => all || !ROUTING.has(visit.type));
    const ended = visits.every((visit) => visit.durationMs !== null);
    const last = visits.at(-1);
    const errors = last.name === 'Return Error To Agent' || visits.some((visit) => visit.outcome === 'failed');
    const selection = index.turn.events.filter((event) => event.type === 'TOOL_SELECTION' && event.toolUseId === named?.toolUseId && named);
    const call = {
      id: `call-${box.id}-${iteration}`, level, kind: 'call', label: named?.toolName ?? `call ${iteration + 1}`,
      note: '', status: ended ? (errors ? 'failed' : 'succeeded') : 'running',
      start: visits[0].enteredAt, duration: ended ? Math.max(...visits.map((visit) => visit.enteredAt + visit.durationMs)) - visits[0].enteredAt : null,
      source: { events: selection.map((event) => event.id), visit: (named ?? last).id, output: last.id },
    };
    const attempts = visits.filter((visit) => visit.name === 'Invoke Tool');
    call.note = attempts.length > 1 ? `${attempts.length} attempts` : errors ? 'error to the agent' : '';
    const memory = visits.flatMap((visit) => memoryRows(visit, level + 1, index.turn));
    if (!all && shown.length === 1) {
      const only = attemptRow(shown[0], level, index.turn);
      rows.push({ ...call, work: only.work, note: only.note, state: only.state, hasChildren: memory.length > 0, source: { ...call.source, events: [...call.source.events, ...only.source.events] } }, ...memory);
      continue;
    }
    call.hasChildren = shown.length > 0;
    rows.push(call, ...shown.flatMap((visit) => (visit.toolName ? [attemptRow(visit, level + 1, index.turn), ...triesRows(visit, level + 2)] : stateRows(visit, level + 1, index, all))), ...memory);
  }
  return rows;
}

/** A visit that worked on a tool call, with the tool's own time where a trace event tells it. */
function attemptRow(visit, level, turn) {
  const events = turn.events.filter((event) => event.type === 'TOOL_INVOCATION' && event.toolUseId === visit.toolUseId
    && event.step === visit.step && (event.attempt === visit.attempt || visit.attempt === undefined));
  const event = events.at(-1);
  const error = visit.tries.findLast((attempt) => attempt.error)?.error;
  const retry = event?.retryScheduledInMs;
  return {
    id: `visit-${visit.id}`, level, kind: 'attempt', label: visit.name === 'Invoke Tool' ? `Attempt ${visit.attempt}` : visit.name, state: visit.name,
    note: join(event?.errorCode ?? errorCode(visit) ?? (visit.outcome === 'succeeded' ? '' : error ?? ''), retry === undefined ? '' : `again in ${retry} ms`),
    status: visit.outcome === 'caught' ? 'failed' : visit.outcome, start: visit.enteredAt, duration: visit.durationMs,
    work: event?.durationMs === undefined ? undefined : { start: Date.parse(event.timestamp) - event.durationMs, duration: event.durationMs },
    hasChildren: visit.tries.length > 1, source: { visit: visit.id, events: events.map((event) => event.id) },
  };
}

/** The gateway's error code: the cause of its ToolAttemptFailed is JSON with JSON as its message. */
function errorCode(visit) {
  const cause = visit.tries.findLast((attempt) => attempt.error)?.cause;
  if (!cause) return undefined;
  try {
    return JSON.parse(JSON.parse(cause).errorMessage).errorCode;
  } catch {
    return undefined; // another failure, with another cause
  }
}

const MEMORY_TOOLS = { search_memory: 'MEMORY_RETRIEVAL', remember: 'MEMORY_WRITE', forget: 'MEMORY_WRITE' };

const EVENT_LABELS = {
  MEMORY_RETRIEVAL: 'Retrieved', MEMORY_WRITE: 'Written', FINAL_RESPONSE: 'Final response', TURN_FAILED: 'Turn failed',
};

function eventRow(event, level, turn) {
  const model = event.type === 'MODEL_INVOCATION';
  const duration = event.type === 'FINAL_RESPONSE' ? 0 : event.durationMs ?? 0;
  return {
    id: `event-${event.id}`, level, kind: model ? 'model' : event.type.startsWith('MEMORY') ? 'memory' : 'event', hasChildren: false,
    label: model ? shortModel(event.model) : join(EVENT_LABELS[event.type] ?? event.type, event.namespace ?? '', ' '),
    note: model
      ? join(event.attempt > 1 || event.status === 'FAILED' ? `attempt ${event.attempt}` : '', event.errorCode ?? tokens(event))
      : event.errorCode ?? event.error ?? (event.recordCount === undefined ? '' : `${event.recordCount} record${event.recordCount === 1 ? '' : 's'}`),
    status: event.status === 'SUCCESS' ? 'succeeded' : event.status === 'STARTED' ? 'running' : 'failed',
    start: Date.parse(event.timestamp) - duration, duration,
    source: { events: [event.id], step: model && event.status === 'SUCCESS' && turn.steps.some((step) => step.step === event.step) ? event.step : undefined },
  };
}

const tokens = (usage) => (usage?.inputTokens === undefined ? '' : `${usage.inputTokens} → ${usage.outputTokens} tok`);
const join = (a, b, separator = ' · ') => [a, b].filter(Boolean).join(separator);

/** `us.anthropic.claude-sonnet-4-5-20250929-v1:0` as `claude-sonnet-4-5`. */
export function shortModel(model) {
  return model.replace(/^.*[/]/, '').replace(/^(?:[a-z]{2,6}\.)?(?:[a-z0-9]+\.)(?=[a-z])/, '').replace(/-\d{8}.*$/, '').replace(/-v\d+:\d+$/, '');
}
