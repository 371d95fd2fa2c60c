// Python's bytes, which str.encode() returns, and the encodings of texts.
import type { Budget } from './budget.ts';
import { escapeOf } from './characters.ts';
import { TemplateError } from './errors.ts';
import { Obj, type Value } from './values.ts';

export class Bytes extends Obj {
  readonly typeName = 'bytes';
  readonly data: Uint8Array;

  constructor(data: Uint8Array) {
    super();
    this.data = data;
  }

  override get length() {
    return this.data.length;
  }

  override *iterate(budget: Budget) {
    for (const byte of this.data) {
      budget.spend(1);
      yield byte;
    }
  }

  override repr(budget: Budget) {
    budget.text(this.data.length * 2);
    return quoteBytes(this.data);
  }

  /** needle in value: needle is bytes, or the value of one byte. */
  contains(needle: Value): boolean {
    if (needle instanceof Bytes) return Buffer.from(this.data).includes(Buffer.from(needle.data));
    const byte = typeof needle === 'boolean' ? Number(needle) : needle;
    const isByte = typeof byte === 'number' && Number.isInteger(byte) && byte >= 0 && byte < 256;
    if (isByte) return this.data.includes(byte);
    throw new TemplateError('a bytes-like object or an int from 0 to 255 is required');
  }

  override item(key: Value): Value | undefined {
    const index = typeof key === 'boolean' ? Number(key) : key;
    return typeof index === 'number' && Number.isInteger(index) ? this.data.at(index) : undefined;
  }
}

/** Python's repr of bytes. */
export function quoteBytes(data: Uint8Array): string {
  const text = binaryOf(data);
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes: Record<string, string> = { '\t': '\\t', '\n': '\\n', '\r': '\\r', '\\': '\\\\', [mark]: `\\${mark}` };
  return `b${mark}${text.replace(/[^ -~]|[\\'"]/g, (one) => escapes[one] ?? (/[ -~]/.test(one) ? one : escapeOf(one)))}${mark}`;
}

/** One character per byte. */
const binaryOf = (data: Uint8Array) => Buffer.from(data).toString('latin1');

/** The supported encodings, by the names that Python accepts. */
const NAMES: Record<string, string> = {
  ...Object.fromEntries(['utf-8', 'utf8', 'u8', 'utf'].map((name) => [name, 'utf-8'])),
  ...Object.fromEntries(['ascii', 'us-ascii', '646'].map((name) => [name, 'ascii'])),
  ...Object.fromEntries(['latin-1', 'latin1', 'iso-8859-1', 'l1', 'latin'].map((name) => [name, 'latin-1'])),
};

function encodingOf(name: string): string {
  const known = NAMES[name.toLowerCase().replace(/[ _]/g, '-')];
  if (known) return known;
  throw new TemplateError(`the encoding '${name}' is not supported; utf-8, ascii and latin-1 are`);
}

/** str.encode() */
export function encode(text: string, encoding: string, errors: string): Bytes {
  const known = encodingOf(encoding);
  const limit = { 'utf-8': 0x110000, ascii: 0x80, 'latin-1': 0x100 }[known]!;
  let encoded = '';
  for (const one of text) {
    const code = one.codePointAt(0)!;
    const isKnown = code < limit && !(code >= 0xd800 && code <= 0xdfff);
    encoded += isKnown ? one : replaced(one, known, errors);
  }
  return new Bytes(Buffer.from(encoded, known === 'utf-8' ? 'utf-8' : 'latin1'));
}

/** The replacement for a character that an encoding does not have. */
function replaced(one: string, encoding: string, errors: string): string {
  if (errors === 'ignore') return '';
  if (errors === 'replace') return '?';
  if (errors === 'xmlcharrefreplace') return `&#${one.codePointAt(0)};`;
  if (errors === 'backslashreplace') return escapeOf(one);
  if (errors === 'strict') throw new TemplateError(`'${encoding}' codec can't encode character '${escapeOf(one)}'`);
  throw new TemplateError(`encode(): errors='${errors}' is not supported`);
}

/** bytes.decode() */
export function decode({ data }: Bytes, encoding: string, errors: string): string {
  const known = encodingOf(encoding);
  if (known === 'latin-1') return binaryOf(data);
  const isWrong = known === 'ascii' ? data.some((byte) => byte > 0x7f) : !isUtf8(data);
  if (!isWrong) return Buffer.from(data).toString('utf-8');
  if (errors === 'strict') throw new TemplateError(`'${known}' codec can't decode the bytes ${quoteBytes(data)}`);
  if (errors !== 'replace' && errors !== 'ignore') {
    throw new TemplateError(`decode(): errors='${errors}' is not supported`);
  }
  const mark = errors === 'replace' ? '\ufffd' : '';
  if (known === 'ascii') return binaryOf(data).replace(/[^\0-\x7f]/g, mark);
  // A U+FFFD of the text itself stays: the parts between are decoded separately.
  const parts = binaryOf(data).split('\xef\xbf\xbd');
  return parts.map((part) => Buffer.from(part, 'latin1').toString('utf-8').replaceAll('\ufffd', mark)).join('\ufffd');
}

function isUtf8(data: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(data);
    return true;
  } catch {
    return false;
  }
}
