// Reads the model of a tokenizer.json.
import { BytePairModel } from './bpe.ts';
import { type Fields, fieldsOf } from './fields.ts';
import type { Model } from './model.ts';
import { UnigramModel } from './unigram.ts';
import { WordLevelModel, WordPieceModel } from './word_models.ts';

export function readModel(value: unknown, where: string): Model {
  const fields = fieldsOf(value, where);
  const type = fields.type ?? guessedType(fields);
  if (type === 'BPE') return new BytePairModel(fields, where);
  if (type === 'Unigram') return new UnigramModel(fields, where);
  if (type === 'WordPiece') return new WordPieceModel(fields, where);
  if (type === 'WordLevel') return new WordLevelModel(fields, where);
  throw new Error(`${where}: type ${JSON.stringify(type)} is not supported`);
}

/** The type of the model in old files, which do not name it. */
function guessedType({ merges, vocab, continuing_subword_prefix: prefix }: Fields): string | undefined {
  if (Array.isArray(vocab)) return 'Unigram';
  if (merges !== undefined) return 'BPE';
  if (vocab === undefined) return undefined;
  return prefix === undefined ? 'WordLevel' : 'WordPiece';
}
