// The console's data, and InvokeAgent. Both are of this page's own origin.

import { EventStream } from './event-stream.js';

export class Problem extends Error {
  /** `status` is the HTTP status, 0 if nobody answered; `type` the error's name, if there is one. */
  constructor(message, status = 0, type = '') {
    super(message);
    this.status = status;
    this.type = type;
  }
}

/** Data of the console. `path` is a list of parts, each percent-encoded here. */
export async function read(...path) {
  const response = await request(`api/${path.map(encodeURIComponent).join('/')}`, { cache: 'no-store' });
  return (await checked(response)).json();
}

/** Reads the same again and again; `next` resolves to null when nothing has changed since. */
export class Watched {
  #tag = null;
  #path;

  constructor(...path) {
    this.#path = `api/${path.map(encodeURIComponent).join('/')}`;
  }

  async next(signal) {
    const headers = this.#tag ? { 'If-None-Match': this.#tag } : {};
    const response = await request(this.#path, { cache: 'no-store', headers, signal });
    if (response.status === 304) return null;
    await checked(response);
    this.#tag = response.headers.get('ETag');
    return response.json();
  }
}

/**
 * Starts a turn through InvokeAgent. Calls `onTurn` with the turn's id as soon as it has one; resolves to the answer.
 * Rejects with a Problem that has the error's type, whether the request was refused or the turn failed.
 */
export async function invokeAgent({ agentId, aliasId, sessionId, actor, text, trace, signal, onTurn }) {
  const path = ['agents', agentId, 'agentAliases', aliasId, 'sessions', sessionId, 'text'].map(encodeURIComponent);
  const body = { inputText: text, enableTrace: trace, ...(actor ? { memoryId: actor } : {}) };
  const response = await checked(await request(`/${path.join('/')}`, {
    method: 'POST', body: JSON.stringify(body), signal,
    headers: { 'Content-Type': 'application/json', Authorization: SIGNATURE, 'amz-sdk-invocation-id': crypto.randomUUID() },
  }));
  onTurn(response.headers.get('x-turnwright-turn-id'));
  const answer = [];
  let ended = false;
  for await (const event of new EventStream(response.body)) {
    if (event.kind === 'exception') throw new Problem(event.payload.message, response.status, event.type);
    if (event.type !== 'chunk') continue;
    ended = true;
    answer.push(new TextDecoder().decode(Uint8Array.from(atob(event.payload.bytes), (c) => c.charCodeAt(0))));
  }
  if (!ended) throw new Problem('The answer’s stream ended before the answer came.', response.status);
  return answer.join('');
}

// The offline gateway wants a signature where AWS_IAM is asked for, and takes the caller's name from it; it cannot check it.
const SIGNATURE = 'AWS4-HMAC-SHA256 Credential=console/20260101/us-east-1/execute-api/aws4_request, SignedHeaders=host, Signature=0';

async function request(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem('The offline stack does not answer. Is `make up` still running?');
  }
}

async function checked(response) {
  if (response.ok) return response;
  const type = (response.headers.get('x-amzn-ErrorType') ?? '').split(':')[0];
  const document = await response.json().catch(() => ({}));
  throw new Problem(document.message ?? `The stack answered with status ${response.status}.`, response.status, type);
}
