// Folders as bitsandbytes stores them in 4 bits, written here by formulas in f64.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addLora, generate, loadModel, loadTokenizer, mergeLora, QuantizedWeight, saveModel } from '../../lib/index.ts';
import { SafetensorsFile, type TensorToWrite, writeSafetensors } from '../../lib/io/safetensors.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';
import { floatsOf } from '../support/folders.ts';
import { generator } from '../support/random.ts';
import { newFolder, tinyModelFolder } from '../support/runs.ts';

/** Appendix E of arXiv 2305.14314. */
const VALUES = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/** create_dynamic_map(signed=True, max_exponent_bits=7, total_bits=8) of bitsandbytes. */
function dynamicMap(): number[] {
  const map = [0, 1];
  for (let i = 0; i < 7; i++) {
    const boundaries = Array.from({ length: 2 ** i + 1 }, (_, j) => 0.1 + (0.9 * j) / 2 ** i);
    for (let j = 0; j < 2 ** i; j++) {
      const mean = 10 ** (i - 6) * ((boundaries[j]! + boundaries[j + 1]!) / 2);
      map.push(mean, -mean);
    }
  }
  return map.sort((a, b) => a - b);
}

const settings = {
  quant_method: 'bitsandbytes',
  _load_in_4bit: true,
  _load_in_8bit: false,
  load_in_4bit: true,
  load_in_8bit: false,
  bnb_4bit_compute_dtype: 'bfloat16',
  bnb_4bit_quant_storage: 'uint8',
  bnb_4bit_quant_type: 'nf4',
  bnb_4bit_use_double_quant: true,
  llm_int8_enable_fp32_cpu_offload: false,
  llm_int8_has_fp16_weight: false,
  llm_int8_skip_modules: null,
  llm_int8_threshold: 6.0,
};

interface Folder {
  folder: string;
  /** What the projections stand for, in f64. */
  expected: Map<string, Float64Array>;
}

/** A folder of a tiny model whose projections have random codes; `change` has the tensors and each JSON text. */
async function quantizedFolder(
  change: (tensors: Map<string, TensorToWrite>) => void = () => {},
  changeState: (state: Record<string, unknown>) => void = () => {},
): Promise<Folder> {
  const folder = await tinyModelFolder();
  const path = join(folder, 'model.safetensors');
  const file = await SafetensorsFile.open(path);
  const random = generator(5);
  const expected = new Map<string, Float64Array>();
  const tensors = new Map<string, TensorToWrite>();
  const put = (name: string, data: Uint8Array | Float32Array, shape: number[] = [data.length]) => {
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    tensors.set(name, { name, dtype: data instanceof Uint8Array ? 'U8' : 'F32', shape, data: () => bytes });
  };
  for (const [name, { shape, dtype }] of file.entries) {
    if (!name.includes('_proj')) {
      const bytes = await file.read(name);
      tensors.set(name, { name, dtype, shape, data: () => bytes });
      continue;
    }
    const size = shape[0]! * shape[1]!;
    const numBlocks = Math.ceil(size / 64);
    const codes = Uint8Array.from({ length: size }, () => Math.floor(random() * 16));
    const absmax = Uint8Array.from({ length: numBlocks }, () => Math.floor(random() * 256));
    const scales = Float32Array.from({ length: Math.ceil(numBlocks / 256) }, () => 0.01 + 0.01 * random());
    const offset = Math.fround(0.05 + 0.01 * random());
    const map = dynamicMap();
    expected.set(
      name,
      Float64Array.from(codes, (code, i) => {
        const b = Math.floor(i / 64);
        return VALUES[code]! * (map[absmax[b]!]! * scales[Math.floor(b / 256)]! + offset);
      }),
    );
    const packed = Uint8Array.from({ length: size / 2 }, (_, j) => codes[2 * j]! * 16 + codes[2 * j + 1]!);
    put(name, packed, [size / 2, 1]);
    put(`${name}.absmax`, absmax);
    put(`${name}.nested_absmax`, scales);
    put(`${name}.quant_map`, Float32Array.from(VALUES));
    put(`${name}.nested_quant_map`, Float32Array.from(map));
    const state: Record<string, unknown> = {
      quant_type: 'nf4',
      blocksize: 64,
      dtype: 'bfloat16',
      shape,
      nested_blocksize: 256,
      nested_dtype: 'float32',
      nested_offset: offset,
    };
    changeState(state);
    put(`${name}.quant_state.bitsandbytes__nf4`, new TextEncoder().encode(JSON.stringify(state)));
  }
  await file.close();
  change(tensors);
  await writeSafetensors(path, [...tensors.values()]);
  setConfig(folder, settings);
  return { folder, expected };
}

function setConfig(folder: string, quantization_config: object): void {
  const path = join(folder, 'config.json');
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), quantization_config }));
}

const Q = 'model.layers.0.self_attn.q_proj.weight';

describe('a folder of bitsandbytes in 4 bits', () => {
  it('is read as it is', async () => {
    const { folder, expected } = await quantizedFolder();
    using device = openTestDevice();
    using model = await loadModel(folder, { device });
    assert.equal(model.dtype, 'float32');
    assert.equal(model.config.quantization, 'nf4');
    assert.equal([...model.weights()].filter(([, weight]) => weight instanceof QuantizedWeight).length, expected.size);
    assert.equal(expected.size, 14);
    model.dequantize();
    for (const [name, values] of expected) {
      const found = await model.namedParameters().get(name)!.toFloat32();
      assert.equal(found.length, values.length);
      values.forEach((value, i) => {
        assert.ok(
          Math.abs(found[i]! - value) <= 1e-7 * 0.06 + 1e-6 * Math.abs(value),
          `${name} ${i}: ${found[i]}, ${value}`,
        );
      });
    }
    using again = await loadModel(folder, { device, quantization: 'nf4', dtype: 'bfloat16' }); // the same, not quantised twice
    again.dequantize();
    const rounded = await again.namedParameters().get(Q)!.toFloat32();
    expected.get(Q)!.forEach((value, i) => {
      assert.ok(Math.abs(rounded[i]! - value) <= 2 ** -8 * Math.abs(value), `${i}: ${rounded[i]}, ${value}`);
    });
  });

  itOnCpu('generates with an adapter what its dequantised weights generate, and is saved merged', async () => {
    const { folder, expected } = await quantizedFolder();
    using device = openTestDevice();
    const tokenizer = await loadTokenizer('bytes');
    const texts: string[] = [];
    for (const isPlain of [false, true]) {
      using model = await loadModel(folder, { device });
      if (isPlain) model.dequantize();
      const { adapters } = addLora(model, { rank: 2, seed: 3 });
      for (const { b } of adapters.values()) b.write(Float32Array.from({ length: b.size }, (_, i) => Math.sin(i) / 9));
      let text = '';
      for await (const token of generate(model, tokenizer, 'abc', { maxTokens: 12, temperature: 0 }))
        text += token.text;
      texts.push(text);
      if (isPlain) continue;
      mergeLora(model);
      const out = newFolder();
      await saveModel(model, out, { dtype: 'bfloat16' });
      const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'));
      assert.equal(config.quantization_config, undefined);
      assert.equal(config.dtype ?? config.torch_dtype, 'bfloat16');
      const { a, b, scale } = adapters.get(Q.slice(0, -7)) ?? assert.fail();
      assert.ok(a.isDisposed && b.isDisposed && scale === 1);
      const merged = await floatsOf(out, Q);
      const largest = Math.max(...merged.map((value, i) => Math.abs(value - expected.get(Q)![i]!)));
      assert.ok(largest > 1e-3 && largest < 1, `${largest}`);
      using again = await loadModel(out, { device });
      assert.equal(again.config.quantization, null);
    }
    assert.equal(texts[0], texts[1]);
  });

  for (const [name, change, message] of [
    ['fp4', { bnb_4bit_quant_type: 'fp4' }, /bitsandbytes, 4 bits, bnb_4bit_quant_type "fp4", only nf4 is read\)/],
    [
      'without double quantisation',
      { bnb_4bit_use_double_quant: false },
      /bnb_4bit_use_double_quant false, only true is read/,
    ],
    [
      'another storage',
      { bnb_4bit_quant_storage: 'bfloat16' },
      /bnb_4bit_quant_storage "bfloat16", only uint8 is read/,
    ],
    ['8 bits', { load_in_4bit: false, load_in_8bit: true }, /quantised weights \(bitsandbytes, 8 bits\)/],
  ] as const) {
    it(`is refused by its config: ${name}`, async () => {
      const { folder } = await quantizedFolder();
      setConfig(folder, { ...settings, ...change });
      await assert.rejects(loadModel(folder), message);
    });
  }

  const remove = (suffix: string) => (tensors: Map<string, TensorToWrite>) => void tensors.delete(Q + suffix);
  const set = (suffix: string, values: Partial<TensorToWrite>) => (tensors: Map<string, TensorToWrite>) =>
    void tensors.set(Q + suffix, { ...tensors.get(Q + suffix)!, ...values });
  for (const [name, change, message] of [
    [
      'fp4',
      (tensors: Map<string, TensorToWrite>) => {
        const state = `${Q}.quant_state.bitsandbytes__nf4`;
        tensors.set('fp4', { ...tensors.get(state)!, name: state.replace('nf4', 'fp4') });
        tensors.delete(state);
      },
      /q_proj\.weight' is in fp4/,
    ],
    ['no double quantisation', remove('.nested_absmax'), /has no 'nested_absmax': without double quantisation/],
    ['no largest magnitudes', remove('.absmax'), /q_proj\.weight' has no 'absmax'$/],
    [
      'a projection that is left out',
      remove('.quant_state.bitsandbytes__nf4'),
      /is U8 without 'quant_state\.bitsandbytes__nf4'.*llm_int8_skip_modules/,
    ],
    [
      'blocks of 128',
      set('.absmax', { shape: [8], data: () => new Uint8Array(8) }),
      /absmax' is U8 of 8 elements, a weight \(32,32\) in NF4 in blocks of 64 needs U8 of 16/,
    ],
    [
      'another map',
      set('.quant_map', { data: () => new Uint8Array(64) }),
      /quant_map' has 0 at 0, must be -1: another map/,
    ],
    [
      'a text that is none',
      set('.quant_state.bitsandbytes__nf4', { shape: [4], data: () => new Uint8Array(4) }),
      /is not JSON/,
    ],
  ] as const) {
    it(`is refused by its tensors: ${name}`, async () => {
      const { folder } = await quantizedFolder(change);
      await assert.rejects(loadModel(folder), message);
    });
  }

  for (const [field, value, message] of [
    ['blocksize', 128, /says blocksize 128, must be 64/],
    ['nested_blocksize', 128, /says nested_blocksize 128, must be 256/],
    ['quant_type', 'fp4', /says quant_type "fp4", must be "nf4"/],
    ['shape', [32, 16], /says shape \[32,16\], must be \[32,32\]/],
    ['nested_offset', null, /says nested_offset null, must be a number/],
  ] as const) {
    it(`is refused by what a weight says of itself: ${field}`, async () => {
      const { folder } = await quantizedFolder(undefined, (state) => {
        state[field] = value;
      });
      await assert.rejects(loadModel(folder), message);
    });
  }
});
