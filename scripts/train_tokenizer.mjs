// Trains a byte-level BPE tokenizer.json on a text: node scripts/train_tokenizer.mjs TEXT VOCAB_SIZE OUT
// How examples/quickstart/tokenizer.json was made (lib.dom.d.ts of TypeScript 5.9, 4096). Sennrich et al. 2016, arXiv 1508.07909.
import { readFileSync, writeFileSync } from 'node:fs';

const [path, size, out] = process.argv.slice(2);
const text = readFileSync(path, 'utf8');
const vocabSize = Number(size);
const END_OF_TEXT = '<|endoftext|>';

/** Bytes as printable characters, as GPT-2 writes them: printable Latin-1 stands for itself, the rest follows from 256 on. */
const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
let next = 256;
const characters = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));

// What the pre-tokenizer splits at: GPT-2's pattern.
const pattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
const counts = new Map();
for (const [word] of text.matchAll(pattern)) counts.set(word, (counts.get(word) ?? 0) + 1);
const words = [...counts].map(([word, count]) => ({
  count,
  symbols: Array.from(new TextEncoder().encode(word), (byte) => characters[byte]),
}));

/** For every pair of neighbouring symbols: how often it occurs, and in which words. */
const pairs = new Map();
const keyOf = (a, b) => `${a} ${b}`;
function count(word, sign) {
  for (let i = 0; i + 1 < word.symbols.length; i++) {
    const key = keyOf(word.symbols[i], word.symbols[i + 1]);
    const pair = pairs.get(key) ?? { total: 0, words: new Set() };
    pairs.set(key, pair);
    pair.total += sign * word.count;
    pair.words.add(word);
  }
}
for (const word of words) count(word, 1);

const vocab = [END_OF_TEXT, ...[...characters].sort()];
const known = new Set(vocab);
const merges = [];
while (vocab.length < vocabSize) {
  let best = null;
  for (const [key, { total }] of pairs) {
    if (total > 1 && (!best || total > best.total || (total === best.total && key < best.key))) best = { key, total };
  }
  if (!best) break;
  const [a, b] = best.key.split(' ');
  merges.push([a, b]);
  if (!known.has(a + b)) {
    vocab.push(a + b);
    known.add(a + b);
  }
  for (const word of pairs.get(best.key).words) {
    count(word, -1);
    const merged = [];
    for (let i = 0; i < word.symbols.length; i++) {
      const fits = word.symbols[i] === a && word.symbols[i + 1] === b;
      merged.push(fits ? a + b : word.symbols[i]);
      if (fits) i += 1;
    }
    word.symbols = merged;
    count(word, 1);
  }
  pairs.delete(best.key);
}

const special = {
  id: 0,
  content: END_OF_TEXT,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
};
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
const tokenizer = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: [special],
  normalizer: null,
  pre_tokenizer: byteLevel,
  post_processor: null,
  decoder: byteLevel,
  model: {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
    merges,
  },
};
writeFileSync(out, `${JSON.stringify(tokenizer)}\n`);
console.log(`${out}: ${vocab.length} tokens, ${merges.length} merges`);
