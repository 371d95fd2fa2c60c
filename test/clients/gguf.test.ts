// Exported models in programs of others: node-llama-cpp computes what is computed here, @huggingface/gguf reads the keys.
// npm run test:clients installs them.
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Decoder,
  type Device,
  decoderConfig,
  exportGguf,
  generate,
  loadTokenizer,
  noGrad,
  openDevice,
  plainPolicy,
  saveModel,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { normals } from '../support/random.ts';
import { newFolder, tinyLlama, tinyModelFolder } from '../support/runs.ts';

const V = 1024;
const TOKENIZER = 'test/fixtures/tokenizer';
const NEW_TOKENS = 12;
/** The least distance between the two largest logits. */
const GAP = 0.05;
const TEXT = "The quick brown fox, 1234 times: <|user|>hé llo\n\n  é world's end.";

const TEXTS = [
  TEXT,
  "I'VE seen 12345 lines:\n\n  of  text \t and `code()`; isn't it?!\r\n",
  'GrossKlein HTTPServer naïve Ärger 42nd ...   ',
  '日本語とhangul 한국어, emoji 😶‍🌫️ 🚀',
];
/** The expressions of published tokenizers. */
const LLAMA3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2 = LLAMA3.replace('\\p{N}{1,3}', '\\p{N}');
const TEKKEN =
  '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const GPT4O =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** What is used of node-llama-cpp, whose own types are there once it is installed. */
interface Client {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel>; dispose(): Promise<void> }>;
}
interface LlamaModel {
  tokenize(text: string, specialTokens: boolean): readonly number[];
  createContext(options: object): Promise<{ getSequence(): Sequence; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}
interface Sequence {
  evaluateWithMetadata(
    ids: readonly number[],
    metadata: { probabilities: true },
    options: object,
  ): AsyncIterable<{ token: number; probabilities: Map<number, number> }>;
}

/** What is used of @huggingface/gguf. */
interface GgufPackage {
  gguf(
    path: string,
    options: { allowLocalFile: true },
  ): Promise<{
    metadata: Record<string, unknown>;
    tensorInfos: { name: string; shape: bigint[]; dtype: number }[];
  }>;
}

const clients = (path: string) => new URL(`./node_modules/${path}`, import.meta.url).href;

interface Case {
  name: string;
  fixture: string;
  fields?: object;
  /** Repetitions of the text. @default 1 */
  times?: number;
}

const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64, rope_theta: 10_000 };
const six = (every: number) =>
  Array.from({ length: 6 }, (_, i) => ((i + 1) % every === 0 ? 'full_attention' : 'sliding_attention'));
const cases: Case[] = [
  { name: 'llama', fixture: 'llama', fields: { attention_bias: true } },
  { name: 'llama, llama3 positions', fixture: 'llama3-rope-scaled' },
  { name: 'llama, YaRN, wide heads', fixture: 'llama', fields: { rope_parameters: yarn, head_dim: 32 } },
  { name: 'mistral', fixture: 'mistral', fields: { sliding_window: 256 } },
  { name: 'qwen2', fixture: 'qwen2' },
  { name: 'qwen3, tied', fixture: 'qwen3', fields: { tie_word_embeddings: true } },
  { name: 'gemma2', fixture: 'gemma2', fields: { query_pre_attn_scalar: 32, final_logit_softcapping: 30 } },
  {
    name: 'gemma3, positions stretched',
    fixture: 'gemma3',
    fields: {
      query_pre_attn_scalar: 16,
      num_hidden_layers: 6,
      layer_types: six(6),
      rope_parameters: {
        full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1e6 },
        sliding_attention: { rope_type: 'default', rope_theta: 1e4 },
      },
    },
  },
  { name: 'phi3', fixture: 'phi3' },
  { name: 'phi3 beyond its original length', fixture: 'phi4mini', times: 3 },
  { name: 'smollm3', fixture: 'smollm3' },
  { name: 'granite', fixture: 'granite', fields: { embedding_multiplier: 3, logits_scaling: 0.5 } },
  { name: 'olmo2, tied', fixture: 'olmo2', fields: { tie_word_embeddings: true } },
];

/** A model of random weights, norms and biases among them. Logits are large enough to differ. */
async function randomModel(source: object, device: Device, seed: number): Promise<Decoder> {
  const config = decoderConfig(source as Record<string, unknown>);
  const model = new Decoder(config, { device, dtype: 'float32' }).initialize(seed);
  for (const [i, [name, parameter]] of [...model.namedParameters()].entries()) {
    const values = Float32Array.from(normals(parameter.size, 100 * seed + i, 0.2));
    const center = name === 'model.norm.weight' ? 20 : 1;
    if (/norm\.weight$/.test(name)) parameter.write(values.map((value) => center + value - config.norm.offset));
    else if (/bias$/.test(name)) parameter.write(values);
    else if (/embed/.test(name)) parameter.write(values.map((value) => value / (config.embedding.scale > 1 ? 16 : 2)));
  }
  return model;
}

/** Logits of the positions from `first` on. */
async function logitsOf(model: Decoder, ids: readonly number[], first: number): Promise<Float32Array[]> {
  const { device } = model;
  const T = ids.length;
  const inputs = tensor(Int32Array.from(ids), { device });
  using logits = noGrad(() => tidy(() => model.logits({ inputs, targets: inputs, T }, plainPolicy(T))));
  const all = await logits.toFloat32();
  inputs.dispose();
  return Array.from({ length: T - first }, (_, i) => all.slice((first + i) * V, (first + i + 1) * V));
}

const sorted = (values: Float32Array) => values.toSorted((a, b) => b - a);

function probabilitiesOf(logits: Float32Array): number[] {
  const [largest] = sorted(logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest!));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** A tokenizer.json with the vocabulary of the fixture that cuts texts by an expression, or by other steps. */
function tokenizerFolder(preTokenizer: object, ignoresMerges: boolean): string {
  const folder = newFolder();
  cpSync(TOKENIZER, folder, { recursive: true });
  const path = join(folder, 'tokenizer.json');
  const json = JSON.parse(readFileSync(path, 'utf8'));
  json.pre_tokenizer = preTokenizer;
  json.model.ignore_merges = ignoresMerges;
  writeFileSync(path, JSON.stringify(json));
  return folder;
}

const byExpression = (expression: string) => ({
  type: 'Sequence',
  pretokenizers: [
    { type: 'Split', pattern: { Regex: expression }, behavior: 'Isolated', invert: false },
    { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
});
const byDigits = {
  type: 'Sequence',
  pretokenizers: [
    { type: 'Digits', individual_digits: true },
    { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  ],
};

describe('an exported model', () => {
  let llama: Awaited<ReturnType<Client['getLlama']>>;
  let ggufPackage: GgufPackage;
  before(async () => {
    ggufPackage = (await import(clients('@huggingface/gguf/dist/index.mjs'))) as GgufPackage;
    const { getLlama } = (await import(clients('node-llama-cpp/dist/index.js'))) as Client;
    llama = await getLlama({ build: 'never', gpu: false, maxThreads: 1, progressLogs: false, logLevel: 'error' });
  });
  after(() => llama.dispose());

  for (const { name, fixture, fields, times = 1 } of cases) {
    it(`is the same in llama.cpp: ${name}`, async () => {
      const source = {
        ...JSON.parse(readFileSync(`test/fixtures/parity/${fixture}/config.json`, 'utf8')),
        vocab_size: V,
        initializer_range: 0.3,
        ...fields,
      };
      using device = openDevice('cpu', { threads: 1 });
      const folder = newFolder();
      const tokenizer = await loadTokenizer(join(TOKENIZER, 'tokenizer.json'));
      const text = TEXT.repeat(times);
      const prompt = [...tokenizer.wrap(await tokenizer.encode(text), { begin: true })];
      let own: number[] = [];
      let logits: Float32Array[] = [];
      for (let seed = 1; ; seed++) {
        assert.ok(seed < 20, 'a seed with clear choices');
        using model = await randomModel(source, device, seed);
        own = [];
        const options = { temperature: 0, maxTokens: NEW_TOKENS, stopIds: [V - 1] };
        for await (const { id } of generate(model, tokenizer, prompt, options)) own.push(id);
        logits = await logitsOf(model, [...prompt, ...own.slice(0, -1)], prompt.length - 1);
        const isClear = logits.every((row) => sorted(row)[0]! - sorted(row)[1]! >= GAP);
        if (!isClear || own.length < NEW_TOKENS || new Set(own).size < 4) continue;
        await saveModel(model, folder, { tokenizerFrom: TOKENIZER });
        break;
      }
      const file = join(folder, 'model.gguf');
      await exportGguf(folder, file, { type: 'f32' });
      const theirs = await llama.loadModel({ modelPath: file, useMmap: false });
      assert.deepEqual([...theirs.tokenize(text, true)], prompt.slice(1));
      const context = await theirs.createContext({
        contextSize: 256,
        threads: 1,
        flashAttention: false,
        experimentalKvCacheKeyType: 'F32',
        experimentalKvCacheValueType: 'F32',
      });
      let at = 0;
      const steps = context.getSequence().evaluateWithMetadata(prompt, { probabilities: true }, { temperature: 0 });
      for await (const { token, probabilities } of steps) {
        assert.equal(token, own[at], `token ${at}`);
        const expected = probabilitiesOf(logits[at]!);
        for (const [id, probability] of probabilities) {
          assert.ok(
            Math.abs(probability - expected[id]!) < 1e-3,
            `token ${at}: ${id}: ${probability}, ${expected[id]}`,
          );
        }
        at += 1;
        if (at === NEW_TOKENS) break;
      }
      assert.equal(at, NEW_TOKENS);
      await context.dispose();
      await theirs.dispose();
    });
  }

  const cuts: [name: string, preTokenizer: object, ignoresMerges: boolean][] = [
    ['llama-bpe', byExpression(LLAMA3), true],
    ['dbrx', byExpression(LLAMA3), false],
    ['qwen2', byExpression(QWEN2), false],
    ['tekken', byExpression(TEKKEN), true],
    ['gpt-4o', byExpression(GPT4O), false],
    ['smollm', byDigits, false],
  ];
  for (const [name, preTokenizer, ignoresMerges] of cuts) {
    it(`has the same ids with the pre-tokenizer ${name}`, async () => {
      const tokenizerFrom = tokenizerFolder(preTokenizer, ignoresMerges);
      const folder = await tinyModelFolder({ vocab_size: V }, { tokenizerFrom });
      const file = join(folder, 'model.gguf');
      await exportGguf(folder, file);
      const { metadata } = await ggufPackage.gguf(file, { allowLocalFile: true });
      assert.equal(metadata['tokenizer.ggml.pre'], name);
      const tokenizer = await loadTokenizer(join(folder, 'tokenizer.json'));
      const theirs = await llama.loadModel({ modelPath: file, useMmap: false, vocabOnly: true });
      for (const text of TEXTS) {
        assert.deepEqual([...theirs.tokenize(text, true)], [...(await tokenizer.encode(text))], text);
      }
      await theirs.dispose();
    });
  }

  it("has keys and tensors that HuggingFace's parser reads", async () => {
    const folder = await tinyModelFolder({ vocab_size: V }, { tokenizerFrom: TOKENIZER });
    const template = '{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}<|assistant|>';
    writeFileSync(join(folder, 'chat_template.jinja'), template);
    const file = join(folder, 'model.gguf');
    const { tensors, contextLength } = await exportGguf(folder, file, { type: 'q8_0' });
    const { metadata, tensorInfos } = await ggufPackage.gguf(file, { allowLocalFile: true });
    const expected = {
      version: 3,
      tensor_count: BigInt(tensors),
      'general.architecture': 'llama',
      'general.file_type': 7,
      'llama.block_count': 2,
      'llama.context_length': contextLength,
      'llama.attention.head_count_kv': 2,
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.bos_token_id': 1,
      'tokenizer.ggml.eos_token_id': 2,
      'tokenizer.ggml.add_bos_token': true,
      'tokenizer.chat_template': template,
    };
    for (const [key, value] of Object.entries(expected)) assert.equal(metadata[key], value, key);
    const { shape, dtype } = tensorInfos.find(({ name }) => name === 'blk.1.ffn_up.weight')!;
    assert.deepEqual([shape, dtype], [[32n, 88n], 8]);
  });

  for (const type of ['f16', 'bf16', 'q8_0'] as const) {
    it(`has nearly the same logits in ${type}`, async () => {
      const tokenizer = await loadTokenizer(join(TOKENIZER, 'tokenizer.json'));
      const prompt = [...tokenizer.wrap(await tokenizer.encode(TEXT), { begin: true })];
      const folder = newFolder();
      using device = openDevice('cpu', { threads: 1 });
      using model = await randomModel({ ...tinyLlama, vocab_size: V }, device, 1);
      await saveModel(model, folder, { tokenizerFrom: TOKENIZER });
      const expected = probabilitiesOf((await logitsOf(model, prompt, prompt.length - 1))[0]!);
      const file = join(folder, 'model.gguf');
      await exportGguf(folder, file, { type });
      const theirs = await llama.loadModel({ modelPath: file, useMmap: false });
      const context = await theirs.createContext({ contextSize: 256, threads: 1, flashAttention: false });
      const steps = context.getSequence().evaluateWithMetadata(prompt, { probabilities: true }, { temperature: 0 });
      for await (const { probabilities } of steps) {
        let distance = 0;
        for (const [id, probability] of probabilities) distance += Math.abs(probability - expected[id]!) / 2;
        assert.ok(distance < 0.05, `total variation ${distance}`);
        break;
      }
      await context.dispose();
      await theirs.dispose();
    });
  }
});
