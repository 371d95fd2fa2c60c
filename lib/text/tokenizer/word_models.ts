// Models that look words up: as a whole (WordLevel), or from the left by the longest part in the vocabulary (WordPiece).
import { QUICK_TOKEN, QUICK_WORD } from './budget.ts';
import { type Fields, refuseOthers, stringOf } from './fields.ts';
import type { Model } from './model.ts';
import { unitsAt } from './piece.ts';
import { longestToken, readVocabulary } from './vocabulary.ts';

export class WordLevelModel implements Model {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly isQuick = true;
  readonly #unknown: string;

  constructor(fields: Fields, where: string) {
    refuseOthers(fields, where, ['type', 'vocab', 'unk_token']);
    this.vocabulary = readVocabulary(fields, where);
    this.#unknown = stringOf(fields, 'unk_token', where);
  }

  tokenize(word: string, emit: (id: number, end: number) => void): void {
    emit(this.vocabulary.get(word) ?? unknownId(this.vocabulary, this.#unknown, word), word.length);
  }
}

export class WordPieceModel implements Model {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly isQuick: boolean;
  readonly #unknown: string;
  readonly #prefix: string;
  readonly #maxCharacters: number;
  /** Length of the longest token in units: longer parts need not be looked up. */
  readonly #longest: number;

  constructor(fields: Fields, where: string) {
    refuseOthers(fields, where, [
      'type',
      'vocab',
      'unk_token',
      'continuing_subword_prefix',
      'max_input_chars_per_word',
    ]);
    this.vocabulary = readVocabulary(fields, where);
    this.#unknown = stringOf(fields, 'unk_token', where, '[UNK]');
    this.#prefix = stringOf(fields, 'continuing_subword_prefix', where, '##');
    const { max_input_chars_per_word: max = 100 } = fields;
    if (!Number.isInteger(max))
      throw new Error(`${where}: max_input_chars_per_word must be an integer, got ${JSON.stringify(max)}`);
    this.#maxCharacters = max as number;
    this.#longest = longestToken(this.vocabulary);
    this.isQuick = this.#longest <= QUICK_TOKEN && this.#maxCharacters <= QUICK_WORD;
  }

  tokenize(word: string, emit: (id: number, end: number) => void): void {
    const cuts: number[] = [0];
    for (let i = 0; i < word.length; ) {
      i += unitsAt(word, i);
      cuts.push(i);
    }
    const found = cuts.length - 1 > this.#maxCharacters ? null : this.#parts(word, cuts);
    if (!found) emit(unknownId(this.vocabulary, this.#unknown, word), word.length);
    else for (const [id, end] of found) emit(id, end);
  }

  /** @param cuts where the word's characters begin and end */
  #parts(word: string, cuts: readonly number[]): [id: number, end: number][] | null {
    const parts: [number, number][] = [];
    for (let first = 0; first < cuts.length - 1; ) {
      const begin = cuts[first]!;
      const prefix = first > 0 ? this.#prefix : '';
      let last = cuts.length - 1;
      while (last > first && cuts[last]! - begin + prefix.length > this.#longest) last -= 1;
      let id: number | undefined;
      for (; last > first; last--) {
        id = this.vocabulary.get(prefix + word.slice(begin, cuts[last]));
        if (id !== undefined) break;
      }
      if (id === undefined) return null;
      parts.push([id, cuts[last]!]);
      first = last;
    }
    return parts;
  }
}

function unknownId(vocabulary: ReadonlyMap<string, number>, token: string, word: string): number {
  const id = vocabulary.get(token);
  if (id === undefined) {
    throw new Error(
      `tokenizer: no token for ${JSON.stringify(word.slice(0, 64))}, and unk_token ${JSON.stringify(token)} is not in the vocabulary`,
    );
  }
  return id;
}
