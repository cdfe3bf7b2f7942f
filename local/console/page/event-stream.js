// AWS's binary event stream: frames of `length, headers length, CRC, headers, payload, CRC`, numbers big-endian.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

/** The events of a response's body: `{kind: 'event' | 'exception', type, payload}`. */
export class EventStream {
  #body;

  constructor(body) {
    this.#body = body;
  }

  async *[Symbol.asyncIterator]() {
    let pending = new Uint8Array();
    const reader = this.#body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const joined = new Uint8Array(pending.length + value.length);
        joined.set(pending);
        joined.set(value, pending.length);
        pending = joined;
        for (;;) {
          if (pending.length < 12) break;
          const total = new DataView(pending.buffer, pending.byteOffset).getUint32(0);
          if (pending.length < total) break;
          yield frame(pending.subarray(0, total));
          pending = pending.subarray(total);
        }
      }
      if (pending.length) throw new Error('The stream ended in the middle of an event.');
    } finally {
      reader.cancel().catch(() => undefined); // it may have ended with an error already
    }
  }
}

function frame(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const total = bytes.length;
  if (crc32(bytes.subarray(0, 8)) !== view.getUint32(8) || crc32(bytes.subarray(0, total - 4)) !== view.getUint32(total - 4)) {
    throw new Error('An event of the stream is damaged.');
  }
  const headersEnd = 12 + view.getUint32(4);
  const headers = readHeaders(bytes.subarray(12, headersEnd));
  const text = new TextDecoder().decode(bytes.subarray(headersEnd, total - 4));
  return {
    kind: headers[':message-type'],
    type: headers[':event-type'] ?? headers[':exception-type'],
    payload: text ? JSON.parse(text) : {},
  };
}

/** The headers; InvokeAgent's are all strings (type 7). */
function readHeaders(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const decoder = new TextDecoder();
  const headers = {};
  for (let at = 0; at < bytes.length;) {
    const nameEnd = at + 1 + bytes[at];
    const name = decoder.decode(bytes.subarray(at + 1, nameEnd));
    if (bytes[nameEnd] !== 7) throw new Error(`The header ${name} of an event is no string.`);
    const valueStart = nameEnd + 3;
    const valueEnd = valueStart + view.getUint16(nameEnd + 1);
    headers[name] = decoder.decode(bytes.subarray(valueStart, valueEnd));
    at = valueEnd;
  }
  return headers;
}
