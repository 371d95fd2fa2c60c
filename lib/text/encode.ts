// Converts records to token ids, and marks those that are trained on. A document is tokenised as a whole; a token is trained on if the
// characters that it covers are.
import type { DataRecord } from './records/record.ts';
import type { MarkedText, Span } from './targets/marked_text.ts';
import { SpecialTokens } from './targets/special.ts';
import { type Report, type TargetOptions, Targets } from './targets/targets.ts';
import type { Tokenizer } from './tokenizer.ts';

export type EncodeOptions = TargetOptions;

/** Token ids. An id that is not trained on is stored as -1 - id. */
export type MarkedIds = Int32Array;

export const idOf = (marked: number): number => (marked < 0 ? -1 - marked : marked);
const mark = (id: number) => -1 - id;

export class RecordEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #options: EncodeOptions;
  readonly #special: SpecialTokens;
  readonly #targets: Targets | null;

  constructor(tokenizer: Tokenizer, options: EncodeOptions = {}) {
    const { chatTemplate, addedTokens, endOfText } = tokenizer;
    this.#tokenizer = tokenizer;
    this.#options = options;
    this.#special = new SpecialTokens(addedTokens, endOfText);
    this.#targets = chatTemplate && new Targets(chatTemplate, this.#special, options);
  }

  /**
   * A record's documents: the tokenizer's start ids, the text and the end-of-text id; start and end are left out if the text has them. A
   * conversation is exactly what its template renders, and may be several documents.
   * @param isBegin, isEnd whether the record's text is its document's first and last part
   */
  async encode(record: DataRecord, report: Report, { isBegin = true, isEnd = true } = {}): Promise<MarkedIds[]> {
    if ('messages' in record) {
      if (!this.#targets) {
        throw new Error(
          'conversations need a chat template: chat_template.jinja or tokenizer_config.json beside tokenizer.json',
        );
      }
      const documents: MarkedIds[] = [];
      for (const document of await this.#targets.documents(record, report))
        documents.push(await this.#encodeText(document));
      return documents;
    }
    const [prompt, text] = 'text' in record ? ['', record.text] : [record.prompt, record.prompt + record.completion];
    const begin = this.#options.trainOnPrompts ? 0 : prompt.length;
    const ids = await this.#encodeText({ text, targets: [[begin, text.length]] });
    if (prompt !== '' && begin === text.length) report('a completion that is empty');
    if (text === '' && isBegin && isEnd) report('a text that is empty');
    const { endOfText } = this.#tokenizer;
    const within = ids.findIndex((marked) => idOf(marked) === endOfText);
    if (within >= 0 && within < ids.length - 1) report('a text that has the end of text within');
    const begun = this.#tokenizer.wrap(ids, { begin: isBegin });
    if (begin > 0) for (let i = 0; i < begun.length - ids.length; i++) begun[i] = mark(begun[i]!);
    return [this.#tokenizer.wrap(begun, { end: isEnd })];
  }

  async #encodeText({ text, targets }: MarkedText): Promise<MarkedIds> {
    const [first] = targets;
    if (first && first[0] === 0 && first[1] === text.length) return await this.#tokenizer.encode(text);
    const { ids, ends } = await this.#tokenizer.encodeWithEnds(text);
    return markOutside(ids, (token) => this.#lastCharacter(text, ends, token), targets);
  }

  /** The character that decides whether a token is in a span: its last one, not counting white space that a special token absorbs. */
  #lastCharacter(text: string, ends: Int32Array, token: number): number {
    return this.#special.endIn(text, token === 0 ? 0 : ends[token - 1]!, ends[token]!) - 1;
  }
}

/** Marks the ids of tokens whose character is in none of the spans as not trained on. */
function markOutside(ids: Int32Array, characterOf: (token: number) => number, spans: readonly Span[]): MarkedIds {
  const marked = new Int32Array(ids.length);
  let k = 0;
  for (let token = 0; token < ids.length; token++) {
    const character = characterOf(token);
    while (k < spans.length && spans[k]![1] <= character) k += 1;
    const isTarget = k < spans.length && character >= spans[k]![0];
    marked[token] = isTarget ? ids[token]! : mark(ids[token]!);
  }
  return marked;
}
