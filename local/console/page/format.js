// Numbers, times and identifiers as the page writes them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const clockFormat = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dayFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

export const NONE = '–';

export const count = (value) => (value === null || value === undefined ? NONE : whole.format(value));

/** Milliseconds: `0.4 ms`, `42 ms`, `1.24 s`, `2 min 05 s`. */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 9.95) return `${ms.toFixed(ms < 0.05 ? 0 : 1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_995) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}

/** A round number of milliseconds, as an axis has it. */
export function tick(ms) {
  if (ms < 1000) return `${ms} ms`;
  return ms < 60_000 ? `${ms / 1000} s` : `${ms / 60_000} min`;
}

/** Dollars; turns cost fractions of a cent. */
export function dollars(value) {
  if (value === null || value === undefined) return NONE;
  return `$${value.toFixed(value >= 1 ? 2 : value >= 0.01 ? 4 : 6)}`;
}

export const clock = (ms) => (ms ? clockFormat.format(ms) : NONE);

/** A moment: only the time for today, with the date before. */
export function moment(ms) {
  if (!ms) return NONE;
  return new Date(ms).toDateString() === new Date().toDateString() ? clock(ms) : dayFormat.format(ms);
}

export const short = (id) => (id && id.length > 12 ? `${id.slice(0, 8)}…` : id ?? NONE);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
