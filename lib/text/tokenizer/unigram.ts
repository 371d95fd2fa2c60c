// SentencePiece's unigram model: of all ways to cut a word into tokens, the one with the greatest sum of scores.
import { QUICK_TOKEN } from './budget.ts';
import { booleanOf, type Fields, listOf, refuseOthers } from './fields.ts';
import type { Model } from './model.ts';
import { PairTable } from './pair_table.ts';
import { unitsAt } from './piece.ts';
import { byteTokens, longestToken } from './vocabulary.ts';

/** The score of an unknown character is so much below the lowest score. */
const UNKNOWN_PENALTY = 10;

const utf8 = new TextEncoder();

export class UnigramModel implements Model {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly isQuick: boolean;
  readonly #scores: Float64Array;
  /** A trie of UTF-16 units: node and unit → node. #tokenAt: node → id of the token that ends there, or -1. */
  readonly #trie: PairTable;
  readonly #tokenAt: number[] = [-1];
  readonly #unknown: number;
  readonly #unknownScore: number;
  readonly #bytes: Int32Array | null;

  constructor(fields: Fields, where: string) {
    refuseOthers(fields, where, ['type', 'vocab', 'unk_id', 'byte_fallback']);
    const entries = listOf(fields, 'vocab', where);
    const vocabulary = new Map<string, number>();
    this.#scores = new Float64Array(entries.length);
    this.#trie = new PairTable(4 * entries.length);
    entries.forEach((entry, id) => {
      const [token, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
      if (typeof token !== 'string' || typeof score !== 'number') {
        throw new Error(`${where}.vocab[${id}] must be a token and its score, got ${JSON.stringify(entry)}`);
      }
      vocabulary.set(token, id);
      this.#scores[id] = score;
      let node = 0;
      for (let i = 0; i < token.length; i++) {
        let next = this.#trie.get(node, token.charCodeAt(i));
        if (next < 0) {
          next = this.#tokenAt.push(-1) - 1;
          this.#trie.set(node, token.charCodeAt(i), next);
        }
        node = next;
      }
      if (node > 0) this.#tokenAt[node] = id;
    });
    this.vocabulary = vocabulary;
    this.isQuick = longestToken(vocabulary) <= QUICK_TOKEN;
    const { unk_id: unknown } = fields;
    this.#unknown = typeof unknown === 'number' ? unknown : -1;
    if (
      unknown !== undefined &&
      unknown !== null &&
      !(Number.isInteger(unknown) && this.#unknown >= 0 && this.#unknown < entries.length)
    ) {
      throw new Error(
        `${where}: unk_id is ${JSON.stringify(unknown)}, but the vocabulary has ${entries.length} tokens`,
      );
    }
    this.#unknownScore = this.#scores.reduce((least, score) => Math.min(least, score), Infinity) - UNKNOWN_PENALTY;
    this.#bytes = booleanOf(fields, 'byte_fallback', where, false) ? byteTokens(vocabulary) : null;
  }

  tokenize(word: string, emit: (id: number, end: number) => void): void {
    const { begins, ids } = this.#bestPath(word);
    // Goes through the tokens from the end; consecutive unknown characters are one token.
    const cuts: { begin: number; end: number; id: number }[] = [];
    for (let end = word.length; end > 0; ) {
      const begin = begins[end]!;
      const last = cuts.at(-1);
      if (ids[end] === this.#unknown && last?.id === this.#unknown) last.begin = begin;
      else cuts.push({ begin, end, id: ids[end]! });
      end = begin;
    }
    for (const { begin, end, id } of cuts.reverse()) {
      if (id !== this.#unknown) emit(id, end);
      else this.#unknownText(word, begin, end, emit);
    }
  }

  #unknownText(word: string, begin: number, end: number, emit: (id: number, end: number) => void): void {
    const known = this.vocabulary.get(word.slice(begin, end));
    const bytes = this.#bytes;
    if (known !== undefined || !bytes || utf8.encode(word.slice(begin, end)).some((byte) => bytes[byte]! < 0)) {
      emit(known ?? this.#unknown, end);
      return;
    }
    for (let i = begin; i < end; ) {
      const next = i + unitsAt(word, i);
      for (const byte of utf8.encode(word.slice(i, next))) emit(bytes[byte]!, next);
      i = next;
    }
  }

  /** For each place in the word: where the best token that ends there begins, and its id. */
  #bestPath(word: string): { begins: Int32Array; ids: Int32Array } {
    const length = word.length;
    const scores = new Float64Array(length + 1);
    const begins = new Int32Array(length + 1).fill(-1);
    const ids = new Int32Array(length + 1);
    const offer = (begin: number, end: number, id: number, score: number) => {
      if (begins[end] !== -1 && !(score > scores[end]!)) return;
      scores[end] = score;
      begins[end] = begin;
      ids[end] = id;
    };
    for (let begin = 0; begin < length; ) {
      const single = begin + unitsAt(word, begin);
      let hasSingle = false;
      let node = 0;
      for (let end = begin; end < length; ) {
        node = this.#trie.get(node, word.charCodeAt(end++));
        if (node < 0) break;
        const id = this.#tokenAt[node]!;
        if (id < 0) continue;
        offer(begin, end, id, this.#scores[id]! + scores[begin]!);
        hasSingle ||= end === single;
      }
      if (!hasSingle) {
        if (this.#unknown < 0) {
          throw new Error(`tokenizer: no token for ${JSON.stringify(word.slice(begin, single))}, and no unk_id`);
        }
        offer(begin, single, this.#unknown, this.#unknownScore + scores[begin]!);
      }
      begin = single;
    }
    return { begins, ids };
  }
}
