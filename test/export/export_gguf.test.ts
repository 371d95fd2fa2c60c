// GGUF files: every byte of a small model, types, what is refused, and what a failure leaves. test/clients runs them in llama.cpp.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { preTokenizerOf } from '../../lib/export/pre_tokenizers.ts';
import { exportGguf, loadTokenizer } from '../../lib/index.ts';
import { commandLine } from '../support/command.ts';
import { floatsOf, parity } from '../support/folders.ts';
import { elementsOf, readGguf } from '../support/gguf.ts';
import { newFolder, tinyModelFolder } from '../support/runs.ts';

const TOKENIZER = 'test/fixtures/tokenizer';
const V = 1024;

const tiny = (fields: object = {}) => tinyModelFolder({ vocab_size: V, ...fields }, { tokenizerFrom: TOKENIZER });

async function exported(folder: string, type: 'f32' | 'f16' | 'bf16' | 'q8_0') {
  const file = join(newFolder(), 'model.gguf');
  await exportGguf(folder, file, { type });
  return readGguf(file);
}

/** The folder of a fixture with the tokenizer; fields of config.json may differ. */
function changed(fixture: string, fields: object): string {
  const folder = newFolder();
  cpSync(parity(fixture), folder, { recursive: true });
  cpSync(TOKENIZER, folder, { recursive: true });
  const path = join(folder, 'config.json');
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...fields }));
  return folder;
}

describe('a GGUF file', () => {
  it('holds the weights, with rows of queries and keys in pairs', async () => {
    const folder = await tiny();
    const gguf = await exported(folder, 'f32');
    const same = async (name: string, stored: string) =>
      assert.deepEqual(elementsOf(gguf, name), [...(await floatsOf(folder, stored))], name);
    await same('token_embd.weight', 'model.embed_tokens.weight');
    await same('output.weight', 'lm_head.weight');
    await same('blk.1.attn_v.weight', 'model.layers.1.self_attn.v_proj.weight');
    await same('blk.1.ffn_down.weight', 'model.layers.1.mlp.down_proj.weight');
    assert.deepEqual(gguf.tensors.get('blk.1.ffn_down.weight')!.sizes, [88, 32]);
    for (const [, { begin }] of gguf.tensors) assert.equal(begin % 32, 0);
    const [C, D] = [32, 8];
    const keys = await floatsOf(folder, 'model.layers.0.self_attn.k_proj.weight');
    const written = elementsOf(gguf, 'blk.0.attn_k.weight');
    for (let row = 0; row < 2 * D; row++) {
      const from = Math.floor(row / D) * D + (row % 2) * (D / 2) + Math.floor((row % D) / 2);
      assert.deepEqual(written.slice(row * C, (row + 1) * C), [...keys.subarray(from * C, (from + 1) * C)]);
    }
  });

  it('rounds to nearest in each type', async () => {
    const folder = await tiny();
    const weights = await floatsOf(folder, 'model.layers.0.mlp.gate_proj.weight');
    for (const [type, relative] of [
      ['f16', 2 ** -11],
      ['bf16', 2 ** -8],
    ] as const) {
      const found = elementsOf(await exported(folder, type), 'blk.0.ffn_gate.weight');
      for (const [i, value] of weights.entries()) {
        assert.ok(
          Math.abs(found[i]! - value) <= relative * Math.abs(value) + 2 ** -25,
          `${type}: ${value}, ${found[i]}`,
        );
      }
    }
    const gguf = await exported(folder, 'q8_0');
    assert.equal(gguf.tensors.get('blk.0.ffn_gate.weight')!.type, 8);
    const blocks = elementsOf(gguf, 'blk.0.ffn_gate.weight');
    for (let block = 0; block < weights.length; block += 32) {
      const largest = Math.max(...weights.subarray(block, block + 32).map(Math.abs));
      for (let i = block; i < block + 32; i++) {
        // Half a step of the scale, and the scale's own rounding to half precision, 127 times.
        assert.ok(Math.abs(blocks[i]! - weights[i]!) <= (largest / 127) * (0.5 + 127 * 2 ** -11) + 1e-9, `${i}`);
      }
    }
    // Rows of 88 are no whole blocks; vectors are in f32.
    assert.equal(gguf.tensors.get('blk.0.ffn_down.weight')!.type, 1);
    assert.equal(gguf.tensors.get('blk.0.attn_norm.weight')!.type, 0);
  });

  it("adds the 1 that Gemma's norms lack, and has no head of its own where it is tied", async () => {
    const scales = { query_pre_attn_scalar: 32, vocab_size: V };
    const folder = await tinyModelFolder(
      { ...JSON.parse(readFileSync(`${parity('gemma2')}/config.json`, 'utf8')), ...scales },
      { tokenizerFrom: TOKENIZER },
    );
    const gguf = await exported(folder, 'f32');
    assert.deepEqual(new Set(elementsOf(gguf, 'blk.0.post_ffw_norm.weight')), new Set([1]));
    assert.ok(!gguf.tensors.has('output.weight'));
    assert.equal(gguf.metadata.get('gemma2.attention.sliding_window'), 24);
  });

  it('has the tokens, their kinds and the merges', async () => {
    const { metadata } = await exported(await tiny({ vocab_size: V + 2 }), 'bf16');
    const json = JSON.parse(readFileSync(`${TOKENIZER}/tokenizer.json`, 'utf8'));
    const tokens = metadata.get('tokenizer.ggml.tokens') as string[];
    const kinds = metadata.get('tokenizer.ggml.token_type') as number[];
    for (const [token, id] of Object.entries(json.model.vocab as Record<string, number>))
      assert.equal(tokens[id], token);
    assert.deepEqual(tokens.slice(V), [`[PAD${V}]`, `[PAD${V + 1}]`]);
    const { addedTokens } = await loadTokenizer(`${TOKENIZER}/tokenizer.json`);
    const added = new Set(addedTokens.map(({ id }) => id));
    assert.deepEqual(
      kinds,
      tokens.map((_, id) => (id >= V ? 5 : added.has(id) ? 3 : 1)),
    );
    assert.equal((metadata.get('tokenizer.ggml.merges') as string[]).length, json.model.merges.length);
    assert.equal(metadata.get('tokenizer.ggml.pre'), 'gpt-2');
  });

  it('says no more positions than a window that llama.cpp does not know', async () => {
    const folder = await tiny({ model_type: 'mistral', sliding_window: 24, max_position_embeddings: 512 });
    assert.equal((await exported(folder, 'bf16')).metadata.get('llama.context_length'), 24);
  });
});

describe('an export', () => {
  const refused = async (folder: string, expected: RegExp) => {
    const out = newFolder();
    await assert.rejects(exportGguf(folder, join(out, 'model.gguf')), expected);
    assert.deepEqual(readdirSync(out), []);
  };

  it('refuses by name what llama.cpp would compute otherwise', async () => {
    await refused(
      await tiny({ model_type: 'seed_oss' }),
      /model_type 'seed_oss' is not written as GGUF.*llama, mistral/,
    );
    await refused(
      changed('gemma2', { query_pre_attn_scalar: 24 }),
      /gemma2 has no key for layer 0's scores' scale .*1\/sqrt\(32\)/,
    );
    const dynamic = { rope_type: 'dynamic', factor: 2, rope_theta: 10_000 };
    await refused(
      await tiny({ rope_parameters: dynamic, max_position_embeddings: 64 }),
      /layer 0's rotary positions "dynamic": it takes default, linear, yarn, llama3/,
    );
    const model = { model_type: 'qwen3', attention_bias: true, head_dim: 8 };
    await refused(await tiny(model), /qwen3 has no key for layer 0's biases \(qkv\) true: it takes none/);
  });

  it('refuses tokenizers of which it knows no equal', async () => {
    const folder = await tiny();
    const path = join(folder, 'tokenizer.json');
    const json = JSON.parse(readFileSync(path, 'utf8'));
    const byWords = { ...json, pre_tokenizer: { ...json.pre_tokenizer, add_prefix_space: true } };
    const lowered = { ...json, normalizer: { type: 'Lowercase' } };
    const spaced = {
      ...json,
      added_tokens: [{ ...json.added_tokens[0], rstrip: true }, ...json.added_tokens.slice(1)],
    };
    const merged = { ...json, model: { ...json.model, ignore_merges: true } };
    for (const [changed, expected] of [
      [byWords, /pre_tokenizer .*ids would differ/],
      [lowered, /normalizer .*Lowercase/],
      [spaced, /added token "<pad>" has rstrip/],
      [merged, /ignore_merges true: llama.cpp's 'gpt-2' takes false/],
    ] as const) {
      writeFileSync(path, JSON.stringify(changed));
      await refused(folder, expected);
    }
    await refused(changed('llama', {}), /has ids up to 1023, the embedding 320 rows/);
    assert.throws(() => preTokenizerOf({ type: 'Metaspace' }, false), /pre_tokenizer/);
  });

  it('that fails on a full disk leaves nothing, and an old file as it was', async () => {
    const folder = await tiny();
    const out = newFolder();
    const file = join(out, 'model.gguf');
    writeFileSync(file, 'old');
    const args = [execPath, ...commandLine('export', '--model', folder, '--gguf', file)];
    // A limit of 64 KiB for a file stands for the disk; node sees an error instead of the signal.
    const { status, stderr } = spawnSync('bash', ['-c', `trap '' XFSZ; ulimit -f 64; exec "$@"`, 'bash', ...args], {
      encoding: 'utf8',
    });
    assert.equal(status, 1, stderr);
    assert.match(stderr, /model\.gguf: cannot be written: EFBIG/);
    assert.deepEqual(readdirSync(out), ['model.gguf']);
    assert.equal(readFileSync(file, 'utf8'), 'old');
  });
});
