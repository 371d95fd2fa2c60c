// The decoders of tokenizer.json, with the semantics of HuggingFace's crate `tokenizers`.
import { checkGrowth } from './budget.ts';
import { BYTE_CHARACTERS } from './byte_level.ts';
import { booleanOf, type Fields, fieldsOf, listOf, refuseOthers, stringOf } from './fields.ts';
import { countPart } from './pattern.ts';

/** Converts tokens to the parts of a text. */
export type Decoder = (tokens: string[]) => string[];

/** Longest text that a decoder may put in place of another. */
const MAX_CONTENT = 64;

const lengthOf = (tokens: readonly string[]) => tokens.reduce((sum, { length }) => sum + length, 0);

interface Context {
  numParts: number;
}

const READERS: Record<string, (fields: Fields, where: string, context: Context) => Decoder> = {
  Sequence(fields, where, context) {
    const all = listOf(fields, 'decoders', where).map((one, i) => readDecoder(one, `${where}.decoders[${i}]`, context));
    return (tokens) =>
      all.reduce((now, decode) => {
        const next = decode(now);
        checkGrowth(lengthOf(tokens), lengthOf(next), where);
        return next;
      }, tokens);
  },
  ByteLevel: () => byteLevel,
  ByteFallback: () => byteFallback,
  Fuse: () => (tokens) => [tokens.join('')],
  Replace(fields, where) {
    const { String: literal } = fieldsOf(fields.pattern, `${where}.pattern`);
    if (typeof literal !== 'string') throw new Error(`${where}.pattern: only { String } is supported in a decoder`);
    const content = stringOf(fields, 'content', where);
    if (content.length > MAX_CONTENT)
      throw new Error(`${where}: content has ${content.length} characters, more than ${MAX_CONTENT}`);
    return (tokens) => tokens.map((token) => token.replaceAll(literal, () => content));
  },
  Strip(fields, where) {
    const content = stringOf(fields, 'content', where);
    const [start, stop] = [fields.start ?? 0, fields.stop ?? 0] as [number, number];
    return (tokens) =>
      tokens.map((token) => {
        let [begin, end] = [0, token.length];
        while (begin < start && begin < end && token[begin] === content) begin += 1;
        for (let i = 0; i < stop && end > begin && token[end - 1] === content; i++) end -= 1;
        return token.slice(begin, end);
      });
  },
  Metaspace(fields, where) {
    const replacement = stringOf(fields, 'replacement', where);
    const isNever = fields.prepend_scheme === 'never' || fields.add_prefix_space === false;
    return (tokens) => tokens.map((token, i) => token.replaceAll(replacement, () => (i === 0 && !isNever ? '' : ' ')));
  },
  WordPiece(fields, where) {
    const prefix = stringOf(fields, 'prefix', where, '##');
    const clean = booleanOf(fields, 'cleanup', where, true);
    return (tokens) =>
      tokens.map((token, i) => {
        const text = i === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
        return clean ? withoutArtifacts(text) : text;
      });
  },
  BPEDecoder(fields, where) {
    const suffix = stringOf(fields, 'suffix', where, '</w>');
    return (tokens) => tokens.map((token, i) => token.replaceAll(suffix, i === tokens.length - 1 ? '' : ' '));
  },
};

export function readDecoder(value: unknown, where: string, context: Context = { numParts: 0 }): Decoder {
  countPart(context, where);
  const fields = fieldsOf(value, where);
  const read = Object.hasOwn(READERS, String(fields.type)) ? READERS[String(fields.type)] : undefined;
  if (!read) throw new Error(`${where}: type ${JSON.stringify(fields.type)} is not supported`);
  refuseOthers(fields, where, KNOWN);
  return read(fields, where, context);
}

const KNOWN = [
  'type',
  'decoders',
  'pattern',
  'content',
  'start',
  'stop',
  'replacement',
  'prepend_scheme',
  'add_prefix_space',
  'split',
  'str_rep',
  'prefix',
  'cleanup',
  'suffix',
  'trim_offsets',
  'use_regex',
];

const BYTES = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

/** A token with characters that stand for no byte is kept as text. A byte order mark is kept. */
function byteLevel(tokens: string[]): string[] {
  const bytes: Buffer[] = tokens.map((token) => {
    const own = Buffer.allocUnsafe(token.length);
    for (let i = 0; i < token.length; i++) {
      const byte = BYTES.get(token[i]!);
      if (byte === undefined) return Buffer.from(token, 'utf8');
      own[i] = byte;
    }
    return own;
  });
  return [new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(bytes))];
}

/** Consecutive tokens `<0x..>` are decoded together as UTF-8. If they are no UTF-8, each of them becomes U+FFFD. */
function byteFallback(tokens: string[]): string[] {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    if (bytes.length === 0) return;
    try {
      out.push(new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(Uint8Array.from(bytes)));
    } catch {
      out.push(...bytes.map(() => '\ufffd'));
    }
    bytes = [];
  };
  for (const token of tokens) {
    const hex = /^<0x([\da-fA-F]{2})>$/.exec(token)?.[1];
    if (hex) bytes.push(Number.parseInt(hex, 16));
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
}

function withoutArtifacts(text: string): string {
  return text
    .replaceAll(/ ([.?!,])/g, '$1')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(/ '(s|ve|re)/g, "'$1");
}
