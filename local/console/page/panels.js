// The panels beside the turn: an actor's memory, sessions and recent turns, circuits.

import { emptyState, h, pairs, replaceIfChanged } from './dom.js';
import { clock, count, duration, moment, plural, short } from './format.js';
import { tree } from './payload-view.js';

/** `memory` is the console's data for an actor; `onTurn(turnId)` and `onSession(sessionId)` open what a record names. */
export function showMemory(root, actor, memory, { onTurn, onSession }) {
  replaceIfChanged(root, [actor, memory], () => {
    if (!actor) return emptyState('No actor', 'Name an actor above. What the agent remembers belongs to one; without an actor nothing is remembered beyond the session.');
    const groups = grouped(memory);
    const parts = [
      h('header', { class: 'panel-head' }, h('h2', { text: `What is remembered of ${actor}` }),
        h('p', { class: 'count', text: `${plural(memory.records.length, 'record')}, ${plural(memory.summaries.length, 'session summary', 'session summaries')}` })),
    ];
    if (!groups.length && !memory.summaries.length) {
      parts.push(emptyState('Nothing yet', memory.namespaces.length
        ? 'Records appear when a session has ended and was consolidated, or when the agent remembers something by itself.'
        : 'None of this memory store’s agents declares a namespace, so that nothing is remembered beyond the session.'));
      return parts;
    }
    for (const group of groups) {
      parts.push(h('section', { class: 'namespace' },
        h('h3', {}, h('code', { text: group.path }), h('span', { class: 'count', text: plural(group.records.length, 'record') })),
        group.about && h('p', { class: 'about', text: group.about.description || `Merge rule ${group.about.mergeRule}` }),
        group.records.length
          ? h('ul', { class: 'records' }, group.records.map((record) => recordItem(record, onTurn, onSession)))
          : h('p', { class: 'about', text: 'Empty.' })));
    }
    if (memory.summaries.length) {
      parts.push(h('section', { class: 'namespace' }, h('h3', { text: 'Session summaries' }),
        h('ul', { class: 'records' }, memory.summaries.map((summary) => summaryItem(summary, onSession)))));
    }
    return parts;
  });
}

function grouped(memory) {
  const groups = new Map();
  for (const record of memory.records) {
    if (!groups.has(record.namespace)) {
      groups.set(record.namespace, { path: record.namespace, about: memory.namespaces.find((space) => space.name === record.strategy), records: [] });
    }
    groups.get(record.namespace).records.push(record);
  }
  for (const space of memory.namespaces) {
    const isShown = [...groups.values()].some((group) => group.about?.name === space.name);
    if (!isShown && !space.template.includes('{sessionId}')) groups.set(space.name, { path: space.template, about: space, records: [] });
  }
  for (const group of groups.values()) group.records.sort((a, b) => b.updatedAt - a.updatedAt);
  return [...groups.values()];
}

function recordItem(record, onTurn, onSession) {
  const from = record.provenance;
  return h('li', {}, h('details', { 'data-key': record.recordId },
    h('summary', { 'data-key': `${record.recordId} summary` },
      h('span', { class: 'record-text', text: record.text }),
      h('span', { class: 'record-from', text: [record.key, SOURCES[from.source] ?? from.source, moment(record.updatedAt)].filter(Boolean).join(' · ') })),
    pairs([
      ['Said in turn', from.turn_id && link(short(from.turn_id), () => onTurn(from.turn_id))],
      ['In session', from.session_id && link(from.session_id, () => onSession(from.session_id))],
      ['Event', from.event_id],
      ['By agent', from.agent_id && `${from.agent_id}, version ${from.agent_version}`],
      ['Written by', SOURCES[from.source] ?? from.source],
      ['Consolidation', from.consolidation_id],
      ['Extraction prompt', from.prompt_version],
      ['Key', record.key],
      ['Version', record.version],
      ['First written', moment(record.createdAt)],
      ['Last written', moment(record.updatedAt)],
      ['Kept until', record.expiresAt && new Date(record.expiresAt).toLocaleDateString('en-GB', { dateStyle: 'medium' })],
      ['Record', record.recordId],
    ]),
    from.replaced.length > 0 && h('div', { class: 'replaced' }, h('h4', { text: 'Took the place of' }),
      h('ol', {}, from.replaced.map((old) => h('li', {}, h('span', { text: old.text }), h('span', { class: 'record-from', text: moment(old.at) }))))),
    Object.keys(record.metadata).length > 0 && tree(record.metadata, 0)));
}

const SOURCES = { CONSOLIDATION: 'consolidation', DIGEST: 'digest of a long session', TOOL: 'the agent’s own tool', API: 'a memory client' };

function summaryItem(summary, onSession) {
  const key = `${summary.session_id} ${summary.ended_at}`;
  return h('li', {}, h('details', { 'data-key': key },
    h('summary', { 'data-key': `${key} summary` }, h('span', { class: 'record-text', text: summary.text }), h('span', { class: 'record-from', text: `ended ${moment(summary.ended_at)}` })),
    pairs([
      ['Session', link(summary.session_id, () => onSession(summary.session_id))],
      ['Began', moment(summary.session_started_at)],
      ['By agent', summary.agent_id && `${summary.agent_id}, version ${summary.agent_version}`],
      ['Consolidation', summary.consolidation_id],
      ['Summary prompt', summary.prompt_version],
    ]),
    summary.topics && tree(summary.topics, 0)));
}

const link = (text, action, key = null) => h('button', { type: 'button', class: 'link', 'data-key': key, text, on: { click: action } });

export function showSessions(root, { actor, sessions, turns, current }, { onSession, onTurn }) {
  replaceIfChanged(root, [actor, sessions, turns, current], () => [
    h('header', { class: 'panel-head' }, h('h2', { text: actor ? `Sessions of ${actor}` : 'Sessions without an actor' }), h('p', { class: 'count', text: plural(sessions.length, 'session') })),
    sessions.length
      ? table(['Session', 'Status', '#Version', '#Last change', '#Kept until'], sessions.map((session) => ({
        shown: session.sessionId === current,
        cells: [
          link(session.sessionId, () => onSession(session.sessionId), session.sessionId),
          chip(session.runs ? 'RUNNING' : session.status),
          count(session.version),
          moment(session.updatedAt),
          moment(session.expiresAt),
        ],
      })))
      : emptyState('No session yet', 'A session begins with the first message.'),
    h('header', { class: 'panel-head' }, h('h2', { text: 'Recent turns of all agents' }), h('p', { class: 'count', text: plural(turns.length, 'turn') })),
    turns.length
      ? table(['Turn', 'Status', 'Agent', 'Actor', 'Session', '#Began', '#Took'], turns.map((turn) => ({
        cells: [
          link(short(turn.turnId), () => onTurn(turn.turnId), turn.turnId),
          chip(turn.status),
          turn.agentId ?? '',
          turn.actor,
          turn.sessionId ?? '',
          moment(turn.startedAt),
          turn.endedAt ? duration(turn.endedAt - turn.startedAt) : '',
        ],
      })))
      : emptyState('No turn yet', 'Turns appear here whoever starts them: this page, boto3, a test.'),
  ]);
}

export function showCircuits(root, circuits, now) {
  const told = circuits.map((circuit) => ({ ...circuit, left: circuit.openUntil && Math.max(0, Math.ceil((circuit.openUntil - now) / 1000)) }));
  replaceIfChanged(root, told, () => [
    h('header', { class: 'panel-head' }, h('h2', { text: 'Circuits' }), h('p', { class: 'count', text: plural(circuits.length, 'breaker') })),
    circuits.length
      ? table(['Tool', 'Agent', 'Circuit', '#Failures in a row', '#Opens at', '#Tried again', '#Last failure'], told.map((circuit) => ({
        cells: [
          h('code', { text: circuit.tool }),
          circuit.agentId,
          chip(circuit.state, CIRCUIT_WORDS[circuit.state]),
          count(circuit.failures),
          count(circuit.failureThreshold),
          circuit.state === 'OPEN' ? `in ${circuit.left} s` : circuit.probing ? 'now, by one call' : circuit.state === 'HALF_OPEN' ? 'by the next call' : `after ${circuit.recoverySeconds} s`,
          circuit.lastFailureAt ? clock(circuit.lastFailureAt) : '',
        ],
      })))
      : emptyState('No breaker', 'No tool of the published agents has a circuit breaker in its policy.'),
  ]);
}

const CIRCUIT_WORDS = { OPEN: 'open', HALF_OPEN: 'half-open', CLOSED: 'closed' };

export function chip(status, text = status.toLowerCase()) {
  return h('span', { class: 'chip', 'data-status': status.toLowerCase(), text });
}

/** A table; the columns whose names begin with `#` hold numbers and times. */
function table(names, rows) {
  const titles = names.map((name) => name.replace(/^#/, ''));
  const side = (at) => (names[at].startsWith('#') ? 'number' : null);
  return h('div', { class: 'table', tabindex: 0, role: 'region', 'data-key': titles.join(), 'aria-label': `Table: ${titles.join(', ')}` }, h('table', {},
    h('thead', {}, h('tr', {}, titles.map((title, at) => h('th', { scope: 'col', class: side(at), text: title })))),
    h('tbody', {}, rows.map((row) => h('tr', { 'aria-current': row.shown ? 'true' : null }, row.cells.map((cell, at) => h('td', { class: side(at) }, cell)))))));
}
