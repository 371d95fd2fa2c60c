// New families beyond a step: adapters, the head's factor, validation, saved folders.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  decoderConfig,
  generate,
  loadModel,
  loadTokenizer,
  mergeLora,
  nextTokenLoss,
  noGrad,
  plainPolicy,
  saveModel,
  simulateStep,
  type Tensor,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { FUSED_MODULES, LORA_MODULES, type LoraModule } from '../../lib/models/adapter.ts';
import { evaluate } from '../../lib/train/evaluate.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice } from '../support/devices.ts';
import { used } from '../support/families.ts';
import { plainLoss } from '../support/plain_decoder.ts';
import { integers, normals } from '../support/random.ts';
import { newFolder } from '../support/runs.ts';

const V = 256;
const T = 33;
const chunks = { mlpChunkSize: 7, lossChunkSize: 5, mlpSave: 'input', recompute: 'attention' } as const;
const [ids, targets] = [integers(T, V, 1), integers(T, V, 2)];

function batchOf(device: Device) {
  return { inputs: tensor(ids, { device }), targets: tensor(targets, { device }), T };
}

async function read(tensor: Tensor): Promise<Float32Array> {
  const values = await tensor.toFloat32();
  tensor.dispose();
  return values;
}

const logitsOf = (model: Decoder) =>
  read(noGrad(() => tidy(() => model.logits(batchOf(model.device), plainPolicy(T)))));

/** All modules that may have adapters. */
const modulesOf = ({ config }: Decoder): LoraModule[] =>
  config.layers.some(({ mlp }) => mlp.experts)
    ? ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'lm_head']
    : [...LORA_MODULES, ...FUSED_MODULES];

/** Rows of V. */
const rowsOf = (logits: Float32Array) => Array.from({ length: T }, (_, t) => [...logits.subarray(t * V, (t + 1) * V)]);

for (const family of used) {
  const folder = `test/fixtures/parity/${family}`;
  describe(`a model of ${basename(family)}`, () => {
    it('has the chunked loss of its logits, with adapters everywhere and merged', async () => {
      using device = openTestDevice();
      using model = await loadModel(folder, { device });
      const plain = await logitsOf(model);
      const { adapters } = addLora(model, { rank: 2, modules: modulesOf(model) });
      for (const { b } of adapters.values()) b.write(Float32Array.from(normals(b.size, 3, 0.2)));
      const logits = await logitsOf(model);
      assert.ok(logits.some((value, i) => Math.abs(value - plain[i]!) > 0.01));
      const loss = await read(noGrad(() => tidy(() => nextTokenLoss(model, batchOf(device), { policy: chunks }).loss)));
      assertClose(loss, [plainLoss(rowsOf(logits), targets)], 1e-6, 'loss');
      mergeLora(model);
      assertClose(await logitsOf(model), logits, 1e-5, 'merged');
    });

    it("takes the memory that 'meta' says, with adapters", async () => {
      using device = openTestDevice();
      using model = await loadModel(folder, { device });
      const lora = { rank: 3, dropout: 0.1, modules: modulesOf(model) };
      addLora(model, lora);
      using optimizer = new AdamW(model.trainableParameters());
      using step = new TrainStep(model, optimizer, { policy: chunks });
      device.arena.resetPeak();
      await step.run([{ inputs: ids, targets }], { learningRate: 1e-3 });
      const simulated = simulateStep({ config: model.config, B: 1, T, policy: chunks, lora, like: device.target });
      assert.equal(device.memory().peakBytes, simulated.peakBytes);
    });

    it('is validated by the mean over its logits, and generates their likeliest token', async () => {
      using device = openTestDevice();
      using model = await loadModel(folder, { device });
      const logits = rowsOf(await logitsOf(model));
      const batch = { inputs: ids, targets, B: 1, T, length: T, numTargets: T, documentStart: null };
      const dataset = {
        length: 1,
        T,
        isPacked: false,
        extremes: { shortest: T, longest: T },
        batch: async () => batch,
      };
      const found = await evaluate(model, dataset, { policy: chunks, batchSize: 1 });
      assertClose([found!.validationLoss], [plainLoss(logits, targets)], 1e-6, 'loss');
      const bytes = await loadTokenizer('bytes');
      const last = logits.at(-1)!;
      const generated: number[] = [];
      for await (const { id } of generate(model, bytes, [...ids], { maxTokens: 1, temperature: 0, stopIds: [] })) {
        generated.push(id);
      }
      assert.deepEqual(generated, [last.indexOf(Math.max(...last))]);
    });

    it('is written with its architecture, and read again as it was', async () => {
      using device = openTestDevice();
      const { architectures, ...source } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
      using model = new Decoder(decoderConfig(source), { device }).initialize(1);
      const copy = newFolder();
      await saveModel(model, copy);
      assert.deepEqual(JSON.parse(await readFile(join(copy, 'config.json'), 'utf8')).architectures, architectures);
      using again = await loadModel(copy, { device });
      assert.deepEqual(await logitsOf(again), await logitsOf(model));
    });
  });
}

describe("the head's factor", () => {
  it('comes before its soft-cap', async () => {
    using device = openTestDevice();
    const logits = async (scale: number, softcap: number) => {
      const source = JSON.parse(await readFile('test/fixtures/parity/granite/config.json', 'utf8'));
      using model = new Decoder({ ...decoderConfig(source), head: { scale, softcap } }, { device }).initialize(4);
      const loss = await read(noGrad(() => tidy(() => nextTokenLoss(model, batchOf(device), { policy: chunks }).loss)));
      return { logits: await logitsOf(model), loss };
    };
    const plain = await logits(1, 0);
    const capped = await logits(3, 0.5);
    const expected = plain.logits.map((value) => 0.5 * Math.tanh((3 * value) / 0.5));
    assertClose(capped.logits, expected, 1e-5, 'logits');
    assertClose(capped.loss, [plainLoss(rowsOf(expected), targets)], 1e-6, 'loss');
  });
});

describe("the embedding's factor in bf16", () => {
  for (const [isScaleRounded, factor] of [
    [false, 1.7],
    [true, 1.703125], // of 8 bits
  ] as const) {
    it(`is ${factor} where the specification says ${isScaleRounded ? 'rounded' : 'not rounded'}`, async () => {
      using device = openTestDevice();
      const config = decoderConfig(JSON.parse(await readFile('test/fixtures/parity/granite/config.json', 'utf8')));
      // Without layers, and with an eps that outweighs the mean square: hidden = factor · embedding / 1000.
      const norm = { eps: 1e6, offset: 0 };
      const hidden = (embedding: typeof config.embedding) => {
        using model = new Decoder(
          { ...config, layers: [], norm, head: { scale: 1, softcap: 0 }, embedding },
          { device, dtype: 'bfloat16' },
        ).initialize(4);
        return read(noGrad(() => tidy(() => model.hidden(batchOf(device), chunks))));
      };
      const plain = await hidden({ scale: 1, isScaleRounded });
      const scaled = await hidden({ scale: 1.7, isScaleRounded });
      const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
      // Rounding 1,584 elements to 8 bits averages out.
      assertClose([dot(scaled, plain) / dot(plain, plain)], [factor], 3e-4, 'factor');
    });
  }
});
