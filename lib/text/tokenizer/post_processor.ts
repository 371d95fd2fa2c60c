// The tokens that a tokenizer.json puts before and after a text.

import { MAX_SURROUND } from './budget.ts';
import { fieldsOf, listOf } from './fields.ts';
import { checkId } from './vocabulary.ts';

export interface Surround {
  begin: number[];
  end: number[];
}

export function readPostProcessor(value: unknown): Surround {
  const { begin, end } = read(value, 'post_processor');
  if (Math.max(begin.length, end.length) > MAX_SURROUND) {
    throw new Error(`post_processor puts ${begin.length} tokens before a text and ${end.length} after it`);
  }
  return { begin, end };
}

function read(value: unknown, where: string): Surround {
  if (value === undefined || value === null) return { begin: [], end: [] };
  const fields = fieldsOf(value, where);
  switch (fields.type) {
    case 'ByteLevel': // changes offsets only
      return { begin: [], end: [] };
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { begin: [idOfPair(fields.cls, `${where}.cls`)], end: [idOfPair(fields.sep, `${where}.sep`)] };
    case 'TemplateProcessing':
      return template(
        listOf(fields, 'single', where),
        fieldsOf(fields.special_tokens ?? {}, `${where}.special_tokens`),
        where,
      );
    case 'Sequence': {
      // Each puts its tokens around the result of those before it.
      const all = listOf(fields, 'processors', where).map((one, i) => read(one, `${where}.processors[${i}]`));
      return { begin: all.toReversed().flatMap(({ begin }) => begin), end: all.flatMap(({ end }) => end) };
    }
    default:
      throw new Error(`${where}: type ${JSON.stringify(fields.type)} is not supported`);
  }
}

function idOfPair(value: unknown, where: string): number {
  const [token, id] = Array.isArray(value) ? (value as unknown[]) : [];
  return checkId(id, String(token), where);
}

function template(items: readonly unknown[], tokens: Record<string, unknown>, where: string): Surround {
  const sides: Surround = { begin: [], end: [] };
  let side = sides.begin;
  let sequences = 0;
  for (const item of items) {
    const { SpecialToken: special, Sequence: sequence } = fieldsOf(item, `${where}.single`) as {
      SpecialToken?: { id: string };
      Sequence?: { id: string };
    };
    if (sequence?.id === 'A') {
      sequences += 1;
      side = sides.end;
    } else if (special && Object.hasOwn(tokens, special.id)) {
      const { ids } = fieldsOf(tokens[special.id], `${where}.special_tokens`);
      if (!Array.isArray(ids)) throw new Error(`${where}.special_tokens: ${JSON.stringify(special.id)} has no ids`);
      side.push(...ids.map((id) => checkId(id, special.id, `${where}.special_tokens`)));
    } else {
      throw new Error(
        `${where}.single has ${JSON.stringify(item)}, which is neither the text nor one of special_tokens`,
      );
    }
  }
  if (sequences !== 1) throw new Error(`${where}.single has the text ${sequences} times`);
  return sides;
}
