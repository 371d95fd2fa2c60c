// Padding is not computed: the same numbers as with it, in less memory, within what the planner says.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { paddedLength } from '../../lib/data/dataset.ts';
import {
  AdamW,
  type Batch,
  Decoder,
  decoderConfig,
  empty,
  openDevice,
  parseConfig,
  type RunConfigInput,
  type StepPolicy,
  simulateStep,
  train,
} from '../../lib/index.ts';
import { nextToken } from '../../lib/objectives/next_token.ts';
import { matmulWorkspace } from '../../lib/ops/workspace.ts';
import { disposeScalars, microSteps, stepScalars } from '../../lib/step/micro_steps.ts';
import { testTarget } from '../support/devices.ts';
import { textFile, tinyLlama, tinyRun } from '../support/runs.ts';

const run = (options: Partial<RunConfigInput>, trainOptions?: Parameters<typeof train>[1]) =>
  train(parseConfig(tinyRun(options)), trainOptions);

const documents = [700, 90, 300].map((length, i) => textFile('lazy dog, quick fox. '.repeat(50).slice(i, i + length)));

describe('a batch that is shorter than sequenceLength', () => {
  for (const [name, options] of Object.entries({
    'one document': { data: { files: [documents[0]!] } },
    'documents side by side': { data: { files: documents, packing: false }, batchSize: 2 },
    'packed documents': { data: { files: documents, packing: true } },
    'micro-batches of several lengths': { data: { files: documents, packing: false }, accumulationSteps: 3 },
    'dynamic rope beyond its length': {
      data: { files: documents, packing: false },
      model: {
        config: { ...tinyLlama, rope_scaling: { rope_type: 'dynamic', factor: 2 }, max_position_embeddings: 128 },
      },
    },
  } as Record<string, Partial<RunConfigInput>>)) {
    it(`has the loss, the gradients and the memory of the shorter one: ${name}`, async () => {
      const common = { maxSteps: 2, recompute: 'none', ...options } as const;
      const evaluated = { validation: { files: [documents[1]!] } };
      const data = { ...common.data!, ...evaluated };
      const losses: number[][] = [];
      for (const sequenceLength of [1152, 8192]) {
        const validation: number[] = [];
        const onEvaluation = ({ validationLoss }: { validationLoss: number }) => validation.push(validationLoss);
        const evaluation = { everySteps: 1 };
        const { metrics } = await run({ ...common, data, sequenceLength, evaluation }, { onEvaluation });
        losses.push(
          metrics.flatMap(({ loss, gradNorm, tokens, peakBytes }) => [loss, gradNorm, tokens, peakBytes]),
          validation,
        );
      }
      assert.deepEqual(losses.slice(2), losses.slice(0, 2), 'to the bit');
    });
  }

  const dynamic = { rope_scaling: { rope_type: 'dynamic', factor: 2 }, max_position_embeddings: 128 };
  for (const [name, fields] of Object.entries({ llama: {}, 'with dynamic rope': dynamic })) {
    it(`is computed as the same tokens are without padding: ${name}`, async () => {
      const data = { files: [textFile('lazy dog, quick fox. '.repeat(50).slice(0, 501))] };
      const model = { config: { ...tinyLlama, ...fields, initializer_range: 0.3 } }; // large enough for positions to matter
      const of = async (sequenceLength: number) =>
        (await run({ model, data, sequenceLength, maxSteps: 1 })).metrics[0]!;
      const [padded, exact] = [await of(4096), await of(500)]; // in 512 rows and in 500
      assert.equal(padded.tokens, 500);
      assert.ok(Math.abs(padded.loss / exact.loss - 1) < 1e-6, `${padded.loss} and ${exact.loss}`);
      assert.ok(Math.abs(padded.gradNorm / exact.gradNorm - 1) < 1e-5, `${padded.gradNorm} and ${exact.gradNorm}`);
    });
  }

  it('takes what the planner says of the longest sequence', async () => {
    let longest = 0;
    const onStart = ({ longestSequence }: { longestSequence: number }) => {
      longest = longestSequence;
    };
    const { policy, peakBytes } = await run(
      { data: { files: documents, packing: false }, sequenceLength: 8192 },
      { onStart },
    );
    assert.equal(longest, 768);
    const options = { config: decoderConfig(tinyLlama), B: 1, policy, like: testTarget() };
    assert.equal(peakBytes, simulateStep({ ...options, T: longest }).reservedBytes);
  });
});

/** Bytes that a step on `meta` reserves whose micro-batches have these numbers of rows. */
function reserved(rows: readonly number[], policy: StepPolicy, isPacked: boolean): number {
  const device = openDevice('meta', { like: testTarget() });
  const model = new Decoder(decoderConfig(tinyLlama), { device });
  const optimizer = new AdamW(model.trainableParameters());
  const results = [stepScalars(model), stepScalars(model)];
  const ids = (N: number) => empty([N], { dtype: 'int32', device });
  const makeBatch = (T: number) => (): Batch => ({
    inputs: ids(T),
    targets: ids(T),
    T,
    documentStart: isPacked ? ids(T) : null,
  });
  const settings = { policy, learningRate: 0, maxGradNorm: 1, divisor: 1, dropout: { seed: 0, step: 0 } };
  const options = { objective: nextToken(), ...settings };
  device.arena.resetPeak();
  for (const _ of microSteps({ model, optimizer, scalars: results[0]! }, rows.map(makeBatch), options));
  const { reservedBytes } = device.memory();
  for (const result of results) disposeScalars(result);
  optimizer.dispose();
  model.dispose();
  return reservedBytes;
}

describe('steps of micro-batches of several lengths', () => {
  it('reserve no more than the planner says for the longest, if that one comes first', () => {
    const T = 2048;
    const productWorkspace = matmulWorkspace(openDevice('meta', { like: testTarget() }))?.sizeBytes ?? 0;
    const policies = fc.record({
      mlpChunkSize: fc.constantFrom(100, 512, T),
      lossChunkSize: fc.constantFrom(100, 512, T),
      mlpSave: fc.constantFrom('input', 'gateUp'),
      recompute: fc.constantFrom('none', 'attention', 'layer'),
    }) as fc.Arbitrary<StepPolicy>;
    const lengths = fc.array(fc.integer({ min: 1, max: T }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(policies, lengths, fc.boolean(), (policy, lengths, isPacked) => {
        const rows = lengths.map((length) => paddedLength(length, T)).sort((a, b) => b - a);
        const accumulationSteps = rows.length;
        const like = testTarget();
        const options = { config: decoderConfig(tinyLlama), B: 1, T, policy, isPacked, accumulationSteps, like };
        const limit = simulateStep(options).reservedBytes;
        const bytes = reserved(rows, policy, isPacked);
        // What is left free between smaller activations may not hold the workspace of a product.
        assert.ok(bytes <= limit + productWorkspace, `${bytes} of ${limit} for ${rows}`);
      }),
      { numRuns: 60 },
    );
  });
});
