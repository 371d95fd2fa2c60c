// Tokens and their ids, checked: ids are data of a file, and index rows of a matrix.
import { type Fields, fieldsOf } from './fields.ts';

/** Ids lie in [0, 2^31): they are stored as 32-bit integers, whose sign has a meaning of its own. */
const MAX_ID = 2 ** 31;

export function checkId(id: unknown, token: string, where: string): number {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID) {
    throw new Error(
      `${where}: ${JSON.stringify(token)} has id ${JSON.stringify(id)}, an integer in [0, 2^31) is needed`,
    );
  }
  return id as number;
}

/** `{ token: id }`. Two tokens with the same id are refused. */
export function readVocabulary(fields: Fields, where: string): Map<string, number> {
  const vocabulary = new Map<string, number>();
  const tokens = new Map<number, string>();
  for (const [token, value] of Object.entries(fieldsOf(fields.vocab, `${where}.vocab`))) {
    const id = checkId(value, token, `${where}.vocab`);
    const other = tokens.get(id);
    if (other !== undefined) {
      throw new Error(`${where}.vocab: ${JSON.stringify(other)} and ${JSON.stringify(token)} both have id ${id}`);
    }
    vocabulary.set(token, id);
    tokens.set(id, token);
  }
  return vocabulary;
}

/** UTF-16 units of the longest token. */
export function longestToken(vocabulary: ReadonlyMap<string, number>): number {
  return [...vocabulary.keys()].reduce((longest, { length }) => Math.max(longest, length), 0);
}

/** The ids of the 256 tokens `<0x00>` to `<0xFF>`; -1 for one that is not there. */
export function byteTokens(vocabulary: ReadonlyMap<string, number>): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    return vocabulary.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`) ?? -1;
  });
}
