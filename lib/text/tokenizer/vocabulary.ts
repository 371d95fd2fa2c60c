// Reads tokens and their ids, and checks them: ids come from a file and index the rows of a matrix.
import { type Fields, fieldsOf } from './fields.ts';

/** Ids are in [0, 2^31): they are stored as 32-bit integers, and a negative sign marks ids that are no targets. */
const MAX_ID = 2 ** 31;

export function checkId(id: unknown, token: string, where: string): number {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID) {
    throw new Error(
      `${where}: ${JSON.stringify(token)} has id ${JSON.stringify(id)}, but ids must be integers in [0, 2^31)`,
    );
  }
  return id as number;
}

/** Reads `{ token: id }`. Throws if two tokens have the same id. */
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

/** Length of the longest token in UTF-16 units. */
export function longestToken(vocabulary: ReadonlyMap<string, number>): number {
  return [...vocabulary.keys()].reduce((longest, { length }) => Math.max(longest, length), 0);
}

/** The ids of the 256 tokens `<0x00>` to `<0xFF>`; -1 if there is none. */
export function byteTokens(vocabulary: ReadonlyMap<string, number>): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    return vocabulary.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`) ?? -1;
  });
}
