// The encoder of a tokenizer.json: from texts to the ids of HuggingFace's crate `tokenizers`, and where in the text each token ends.
import { type AddedToken, readAddedTokens, TokenFinder } from './added_tokens.ts';
import { type Fields, fieldsOf, refuseOthers } from './fields.ts';
import type { Model } from './model.ts';
import { readNormalizer } from './normalizers.ts';
import type { PartContext } from './pattern.ts';
import { Piece } from './piece.ts';
import { readPreTokenizer } from './pre_tokenizers.ts';
import { readModel } from './read_model.ts';
import { whole } from './splitting.ts';
import type { Normalizer, PreTokenizer } from './steps.ts';

export interface Encoded {
  ids: Int32Array;
  /**
   * For each token the UTF-16 index after the last character that it covers, even if it covers only a part of that character. Never
   * decreases.
   */
  ends: Int32Array;
}

const FIELDS = [
  'version',
  'truncation',
  'padding',
  'added_tokens',
  'normalizer',
  'pre_tokenizer',
  'post_processor',
  'decoder',
  'model',
];

export class Encoder {
  readonly model: Model;
  readonly addedTokens: readonly AddedToken[];
  /** Whether short texts are always fast: the file has no regular expressions of its own and no very long tokens. */
  readonly isQuick: boolean;
  readonly #normalize: Normalizer | null;
  readonly #preTokenize: PreTokenizer;
  readonly #asTheyAre: TokenFinder;
  readonly #normalized: TokenFinder;

  /** @param json a parsed tokenizer.json. Throws an Error that names any part that is not supported */
  constructor(json: unknown) {
    const fields: Fields = fieldsOf(json, 'tokenizer');
    refuseOthers(fields, 'tokenizer', FIELDS);
    const context: PartContext = { hasRegex: false, numParts: 0 };
    const { normalizer, pre_tokenizer: preTokenizer } = fields;
    this.model = readModel(fields.model, 'model');
    this.addedTokens = readAddedTokens(fields.added_tokens, this.model.vocabulary);
    this.#normalize = normalizer ? readNormalizer(normalizer, 'normalizer', context) : null;
    this.#preTokenize = preTokenizer ? readPreTokenizer(preTokenizer, 'pre_tokenizer', context) : whole;
    this.isQuick = !context.hasRegex && this.model.isQuick;
    this.#asTheyAre = new TokenFinder(this.addedTokens.filter(({ normalized }) => !normalized));
    this.#normalized = new TokenFinder(
      this.addedTokens.filter(({ normalized }) => normalized),
      this.#normalize,
    );
  }

  /**
   * Encodes a text without special tokens at the ends. Does not apply truncation and padding of the file: transformers leaves both to its
   * caller.
   */
  encode(text: string): Encoded {
    const out = new Output(text.length);
    this.#asTheyAre.split(new Piece(text), (section, token) => {
      if (token) return out.add(token.id, section.endAt(section.text.length - 1));
      const normalized = this.#normalize ? this.#normalize(section) : section;
      this.#normalized.split(normalized, (part, found) => {
        if (found) return out.add(found.id, part.endAt(part.text.length - 1));
        this.#preTokenize(part, (word) => {
          this.model.tokenize(word.text, (id, end) => out.add(id, word.endAt(end - 1)));
        });
      });
    });
    return out.done();
  }
}

/** Collects ids and ends. */
class Output {
  #ids: Int32Array;
  #ends: Int32Array;
  #length = 0;

  constructor(numCharacters: number) {
    this.#ids = new Int32Array(16 + (numCharacters >> 1));
    this.#ends = new Int32Array(this.#ids.length);
  }

  add(id: number, end: number): void {
    const i = this.#length;
    if (i === this.#ids.length) {
      const [ids, ends] = [this.#ids, this.#ends];
      this.#ids = new Int32Array(2 * i);
      this.#ends = new Int32Array(2 * i);
      this.#ids.set(ids);
      this.#ends.set(ends);
    }
    this.#ids[i] = id;
    this.#ends[i] = i > 0 ? Math.max(end, this.#ends[i - 1]!) : end;
    this.#length += 1;
  }

  /** The result, in buffers of its own, which can be transferred to another thread. */
  done(): Encoded {
    return { ids: this.#ids.slice(0, this.#length), ends: this.#ends.slice(0, this.#length) };
  }
}
