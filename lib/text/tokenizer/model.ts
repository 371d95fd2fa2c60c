// The model of a tokenizer.json: words to ids.
import { BytePairModel } from './bpe.ts';
import { type Fields, fieldsOf } from './fields.ts';
import { UnigramModel } from './unigram.ts';
import { WordLevelModel, WordPieceModel } from './word_models.ts';

export interface Model {
  /** Tokens and their ids; for decoding. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Whether the time of a word grows as its length. */
  readonly isQuick: boolean;
  /** The tokens of a word, and for each the number of units of the word up to its end. Throws for a character that it has no token for. */
  tokenize(word: string, emit: (id: number, end: number) => void): void;
}

export function readModel(value: unknown, where: string): Model {
  const fields = fieldsOf(value, where);
  const type = fields.type ?? guessedType(fields);
  if (type === 'BPE') return new BytePairModel(fields, where);
  if (type === 'Unigram') return new UnigramModel(fields, where);
  if (type === 'WordPiece') return new WordPieceModel(fields, where);
  if (type === 'WordLevel') return new WordLevelModel(fields, where);
  throw new Error(`${where}: type ${JSON.stringify(type)} is not supported`);
}

/** Old files do not name it. */
function guessedType({ merges, vocab, continuing_subword_prefix: prefix }: Fields): string | undefined {
  if (Array.isArray(vocab)) return 'Unigram';
  if (merges !== undefined) return 'BPE';
  if (vocab === undefined) return undefined;
  return prefix === undefined ? 'WordLevel' : 'WordPiece';
}
