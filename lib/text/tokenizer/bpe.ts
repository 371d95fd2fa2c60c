// Byte-pair encoding: neighbours are merged, those of the lowest rank first and, of these, the leftmost first.
import { booleanOf, type Fields, listOf, refuseOthers } from './fields.ts';
import { MinHeap } from './min_heap.ts';
import type { Model } from './model.ts';
import { PairTable } from './pair_table.ts';
import { unitsAt } from './piece.ts';
import { byteTokens, readVocabulary } from './vocabulary.ts';

const FIELDS = [
  'type',
  'dropout',
  'unk_token',
  'continuing_subword_prefix',
  'end_of_word_suffix',
  'fuse_unk',
  'byte_fallback',
  'ignore_merges',
  'vocab',
  'merges',
];

/** Longest word, in UTF-16 units, whose result is cached, and number of cached words. */
const REMEMBERED_UNITS = 64;
const REMEMBERED_WORDS = 65_536;
/** Words of at least so many units are cut where no token can cross. */
const LONG_WORD = 256;
/** Limit of units of a word: a unit's index and a rank must fit into one double, which orders merges. */
const MAX_WORD = 2 ** 26;

const utf8 = new TextEncoder();

export class BytePairModel implements Model {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly isQuick = true;
  readonly #prefix: string;
  readonly #suffix: string;
  readonly #unknown: number;
  /** The unk_token if the vocabulary does not have it, else null. */
  readonly #missing: string | null;
  readonly #fusesUnknown: boolean;
  readonly #bytes: Int32Array | null;
  readonly #ignoresMerges: boolean;
  /** #ranks: pair of ids → rank of its merge. #merged: rank → id of the merged token. */
  readonly #ranks: PairTable;
  readonly #merged: Int32Array;
  /** Ids of single characters by their code; -1: no token, -2: not looked up yet. */
  readonly #characters = new Int32Array(65_536).fill(-2);
  readonly #remembered = new Map<string, Int32Array>();
  #neighbours: PairTable | null = null;
  /** The symbols of the current word: their ids, the units at which they end, and their neighbours. */
  #ids = new Int32Array(64);
  #ends = new Int32Array(64);
  #previous = new Int32Array(64);
  #next = new Int32Array(64);
  #length = 0;

  constructor(fields: Fields, where: string) {
    refuseOthers(fields, where, FIELDS);
    const { dropout, unk_token: unknown } = fields;
    if (dropout !== undefined && dropout !== null && dropout !== 0) {
      throw new Error(`${where}: dropout is ${JSON.stringify(dropout)}, which makes ids random; set it to null`);
    }
    this.vocabulary = readVocabulary(fields, where);
    this.#prefix = textOf(fields, 'continuing_subword_prefix', where);
    this.#suffix = textOf(fields, 'end_of_word_suffix', where);
    const isNamed = unknown !== undefined && unknown !== null;
    this.#unknown = isNamed ? (this.vocabulary.get(String(unknown)) ?? -1) : -1;
    this.#missing = isNamed && this.#unknown < 0 ? String(unknown) : null;
    this.#fusesUnknown = booleanOf(fields, 'fuse_unk', where, false);
    this.#bytes = booleanOf(fields, 'byte_fallback', where, false) ? byteTokens(this.vocabulary) : null;
    this.#ignoresMerges = booleanOf(fields, 'ignore_merges', where, false);
    const merges = listOf(fields, 'merges', where).filter(
      (one) => typeof one !== 'string' || !one.startsWith('#version'),
    );
    this.#ranks = new PairTable(merges.length);
    this.#merged = new Int32Array(merges.length);
    merges.forEach((one, rank) => {
      const pair = typeof one === 'string' ? one.split(' ') : one;
      if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((side) => typeof side === 'string')) {
        throw new Error(`${where}.merges[${rank}] must be two tokens, got ${JSON.stringify(one)}`);
      }
      const [left, right] = pair as [string, string];
      const id = (token: string) => {
        const found = this.vocabulary.get(token);
        if (found === undefined) {
          throw new Error(`${where}.merges[${rank}]: ${JSON.stringify(token)} is not in the vocabulary`);
        }
        return found;
      };
      this.#ranks.set(id(left), id(right), rank);
      this.#merged[rank] = id(left + right.slice(this.#prefix.length));
    });
  }

  tokenize(word: string, emit: (id: number, end: number) => void): void {
    if (word === '') return;
    const whole = this.#ignoresMerges ? this.vocabulary.get(word) : undefined;
    if (whole !== undefined) {
      emit(whole, word.length);
      return;
    }
    if (word.length < LONG_WORD || this.#prefix !== '' || this.#suffix !== '') {
      this.#merge(word, emit);
      return;
    }
    this.#neighbours ??= this.#neighboursInTokens();
    let begin = 0;
    const next = (end: number) => {
      const from = begin;
      this.#merge(word.slice(from, end), (id, at) => emit(id, from + at));
      begin = end;
    };
    let before = -2; // code of the previous character, which has a token
    for (let i = 0; i < word.length; ) {
      const end = i + unitsAt(word, i);
      const code = this.#characterAt(word, i, end) >= 0 ? word.codePointAt(i)! : -1;
      if (before >= 0 && code >= 0 && this.#neighbours.get(before, code) < 0) next(i);
      before = code;
      i = end;
    }
    next(word.length);
  }

  /**
   * All pairs of neighbouring characters within tokens. A word can be cut between any other two characters, since no merge crosses there.
   */
  #neighboursInTokens(): PairTable {
    const merged = new Set(this.#merged);
    const pairs = new PairTable();
    for (const [token, id] of this.vocabulary) {
      if (!merged.has(id)) continue;
      let before = -1;
      for (const character of token) {
        const code = character.codePointAt(0)!;
        if (before >= 0) pairs.set(before, code, 1);
        before = code;
      }
    }
    return pairs;
  }

  #merge(word: string, emit: (id: number, end: number) => void): void {
    const known = this.#remembered.get(word);
    if (known) {
      for (let i = 0; i < known.length; i += 2) emit(known[i]!, known[i + 1]!);
      return;
    }
    if (word.length >= MAX_WORD)
      throw new RangeError(`tokenizer: a word has ${word.length} characters, the limit is ${MAX_WORD - 1}`);
    this.#symbols(word);
    this.#mergeAll();
    const tokens = word.length <= REMEMBERED_UNITS ? ([] as number[]) : null;
    for (let i = this.#length > 0 ? 0 : -1; i >= 0; i = this.#next[i]!) {
      emit(this.#ids[i]!, this.#ends[i]!);
      tokens?.push(this.#ids[i]!, this.#ends[i]!);
    }
    if (!tokens) return;
    if (this.#remembered.size >= REMEMBERED_WORDS) this.#remembered.clear();
    this.#remembered.set(word, Int32Array.from(tokens));
  }

  /** Sets the symbols to the characters of a word. */
  #symbols(word: string): void {
    this.#length = 0;
    let unknownEnd = -1; // end of an unknown character that has no symbol yet
    for (let i = 0; i < word.length; ) {
      const end = i + unitsAt(word, i);
      const id = this.#characterAt(word, i, end);
      if (id >= 0) {
        if (unknownEnd >= 0) this.#add(this.#unknown, unknownEnd);
        unknownEnd = -1;
        this.#add(id, end);
      } else if (!this.#addBytes(word, i, end)) {
        if (this.#missing !== null) {
          const [character, token] = [word.slice(i, end), this.#missing].map((text) => JSON.stringify(text));
          throw new Error(`tokenizer: no token for ${character}, and unk_token ${token} is not in the vocabulary`);
        }
        if (unknownEnd >= 0 && !this.#fusesUnknown) this.#add(this.#unknown, unknownEnd);
        unknownEnd = this.#unknown >= 0 ? end : -1;
      }
      i = end;
    }
    if (unknownEnd >= 0) this.#add(this.#unknown, unknownEnd);
  }

  #characterAt(word: string, begin: number, end: number): number {
    const prefix = begin > 0 ? this.#prefix : '';
    const suffix = end === word.length ? this.#suffix : '';
    if (prefix !== '' || suffix !== '' || end - begin > 1) {
      return this.vocabulary.get(prefix + word.slice(begin, end) + suffix) ?? -1;
    }
    const code = word.charCodeAt(begin);
    let id = this.#characters[code]!;
    if (id === -2) {
      id = this.vocabulary.get(word[begin]!) ?? -1;
      this.#characters[code] = id;
    }
    return id;
  }

  /** Adds the bytes of a character as symbols. Returns false if a byte has no token. */
  #addBytes(word: string, begin: number, end: number): boolean {
    if (!this.#bytes) return false;
    const prefix = begin > 0 ? this.#prefix : '';
    const bytes = utf8.encode(prefix + word.slice(begin, end) + (end === word.length ? this.#suffix : ''));
    if (bytes.some((byte) => this.#bytes![byte]! < 0)) return false;
    for (const byte of bytes) this.#add(this.#bytes[byte]!, end);
    return true;
  }

  #add(id: number, end: number): void {
    if (this.#length === this.#ids.length) {
      this.#ids = doubled(this.#ids);
      this.#ends = doubled(this.#ends);
      this.#previous = doubled(this.#previous);
      this.#next = doubled(this.#next);
    }
    const i = this.#length++;
    this.#ids[i] = id;
    this.#ends[i] = end;
    this.#previous[i] = i - 1;
    this.#next[i] = -1;
    if (i > 0) this.#next[i - 1] = i;
  }

  #mergeAll(): void {
    const [ids, ends, previous, next] = [this.#ids, this.#ends, this.#previous, this.#next];
    const heap = new MinHeap(this.#length);
    const offer = (left: number, right: number) => {
      const rank = this.#ranks.get(ids[left]!, ids[right]!);
      if (rank >= 0) heap.push(rank * MAX_WORD + left);
    };
    for (let i = 0; i + 1 < this.#length; i++) offer(i, i + 1);
    while (heap.size > 0) {
      const top = heap.pop();
      const rank = Math.floor(top / MAX_WORD);
      const left = top - rank * MAX_WORD;
      const right = next[left]!;
      if (ids[left] === -1 || right < 0) continue;
      const present = this.#ranks.get(ids[left]!, ids[right]!);
      const merged = this.#merged[rank]!;
      if (present < 0 || this.#merged[present] !== merged) continue; // one of the two has been merged with another since
      ids[left] = merged;
      ids[right] = -1;
      ends[left] = ends[right]!;
      next[left] = next[right]!;
      if (next[left]! >= 0) {
        previous[next[left]!] = left;
        offer(left, next[left]!);
      }
      if (previous[left]! >= 0) offer(previous[left]!, left);
    }
  }
}

function doubled(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(2 * array.length);
  larger.set(array);
  return larger;
}

function textOf(fields: Fields, name: string, where: string): string {
  const value = fields[name] ?? '';
  if (typeof value !== 'string') throw new Error(`${where}: ${name} must be a string, got ${JSON.stringify(value)}`);
  return value;
}
