// The header of a safetensors file: JSON with each tensor's dtype, shape and bytes. It is untrusted and checked completely, in linear time.
import { brief, briefName } from '../brief.ts';
import { dtypeBytes, type SafetensorsDtype } from '../runtime/safetensors_dtype.ts';

export interface SafetensorsEntry {
  dtype: SafetensorsDtype;
  shape: number[];
  /** Offset of the first byte in the file. */
  begin: number;
  bytes: number;
}

/** Thrown for a file that violates the format. The message names the file, the tensor and both values. */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError';
}

/** What a header says. */
export interface SafetensorsHeader {
  /** The tensors by name. */
  entries: Map<string, SafetensorsEntry>;
  /** Its `__metadata__`. */
  metadata: ReadonlyMap<string, string>;
}

/** `dataBegin`: offset of their bytes in the file. */
export function parseHeader(
  path: string,
  { text, dataBegin }: { text: string; dataBegin: number },
  fileBytes: number,
): SafetensorsHeader {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new SafetensorsError(`${path}: the header is not JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw new SafetensorsError(`${path}: the header is not a JSON object`);
  }
  const repeated = repeatedKey(text);
  if (repeated) throw new SafetensorsError(`${path}: the header has two ${repeated}`);
  const entries = new Map<string, SafetensorsEntry>();
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isMetadata(value)) throw new SafetensorsError(`${path}: __metadata__ is not an object of strings`);
      metadata = new Map(Object.entries(value));
      continue;
    }
    entries.set(name, parseEntry(path, name, value, dataBegin));
  }
  // There must be no gaps and no overlaps.
  let end = dataBegin;
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.bytes - b.bytes)) {
    if (entry.begin !== end) {
      throw new SafetensorsError(
        `${path}: tensor '${briefName(name)}' begins at byte ${entry.begin}, the one before it ends at ${end}`,
      );
    }
    end += entry.bytes;
  }
  if (end > fileBytes) {
    throw new SafetensorsError(
      `${path}: is cut short: the tensors end at byte ${end}, the file at ${fileBytes}; fetch or copy it again`,
    );
  }
  if (end < fileBytes) throw new SafetensorsError(`${path}: the tensors end at byte ${end}, the file at ${fileBytes}`);
  return { entries, metadata };
}

function parseEntry(path: string, name: string, value: unknown, dataBegin: number): SafetensorsEntry {
  const fail = (what: string) => new SafetensorsError(`${path}: tensor '${briefName(name)}': ${what}`);
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeBytes, dtype)) {
    throw fail(`dtype ${brief(dtype)} is none of ${Object.keys(dtypeBytes).join(', ')}`);
  }
  if (!isSizes(shape)) throw fail(`shape ${brief(shape)} is not a list of sizes`);
  if (!isSizes(offsets) || offsets.length !== 2) throw fail(`data_offsets ${brief(offsets)} are not two offsets`);
  const [begin, end] = offsets as [number, number];
  const expected = shape.reduce((product, size) => product * size, dtypeBytes[dtype as SafetensorsDtype]);
  if (end - begin !== expected) {
    const sizes = brief(shape).slice(1, -1);
    throw fail(`${dtype} (${sizes}) takes ${expected} bytes, data_offsets span ${end - begin}`);
  }
  return { dtype: dtype as SafetensorsDtype, shape, begin: dataBegin + begin, bytes: expected };
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const [OPEN, CLOSE, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/** The first key that occurs twice in the header or in a tensor's entry, which JSON.parse ignores; null if none. `text` is valid JSON. */
function repeatedKey(json: string): string | null {
  const keys: Set<string>[] = [new Set(), new Set(), new Set()];
  let depth = 0;
  let tensor = '';
  for (let i = 0; i < json.length; i++) {
    const code = json.charCodeAt(i);
    if (code === OPEN || code === OPEN_LIST) {
      depth += 1;
      keys[depth]?.clear();
    } else if (code === CLOSE || code === CLOSE_LIST) depth -= 1;
    else if (code === QUOTE) {
      const begin = i;
      i += 1;
      while (json.charCodeAt(i) !== QUOTE) i += json.charCodeAt(i) === BACKSLASH ? 2 : 1;
      if (depth > 2 || !isFollowedByColon(json, i + 1)) continue;
      const name = JSON.parse(json.slice(begin, i + 1)) as string;
      if (keys[depth]!.has(name)) return `${depth === 1 ? 'tensors' : 'fields'} '${briefName(name)}'`;
      if (depth === 1) tensor = name;
      if (tensor !== '__metadata__' || depth === 1) keys[depth]!.add(name);
    }
  }
  return null;
}

function isFollowedByColon(json: string, begin: number): boolean {
  let i = begin;
  while (json.charCodeAt(i) <= 0x20) i += 1;
  return json.charCodeAt(i) === COLON;
}

function isMetadata(value: unknown): value is Record<string, string> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((entry) => typeof entry === 'string')
  );
}

export function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
