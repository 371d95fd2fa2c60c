// Steps of ranks that share the optimizer's states: weights of one rank, and each rank's memory as `meta` says.
import assert from 'node:assert/strict';
import {
  AdamW,
  Decoder,
  decoderConfig,
  openDevice,
  ProcessGroup,
  RankStore,
  simulateStep,
  TrainStep,
} from '../../lib/index.ts';
import { Shards } from '../../lib/ranks/shards.ts';
import { generator } from '../support/random.ts';
import { itOnCpuRanks, onRanks } from '../support/ranks.ts';
import { tinyLlama } from '../support/runs.ts';

const T = 32;
const policy = { mlpChunkSize: 12, lossChunkSize: 12, mlpSave: 'input', recompute: 'attention' } as const;
const config = () => decoderConfig({ ...tinyLlama, hidden_size: 64, intermediate_size: 176 });
const like = { kind: 'cpu', threads: 1 } as const;

/** Micro-batch number i: some have no targets. */
function batch(i: number) {
  const random = generator(i + 1);
  const ids = () => Int32Array.from({ length: T }, () => Math.floor(random() * 256));
  return { inputs: ids(), targets: i % 3 === 2 ? new Int32Array(T).fill(-100) : ids(), T };
}

/** With eps 1 and rate 1 an update is the gradient where that is small: it shows each gradient's error. */
const settings = { eps: 1, weightDecay: 0 };

interface Found {
  losses: number[];
  norms: number[];
  weights: Map<string, Float32Array>;
  peakBytes: number;
}

async function train(
  numSteps: number,
  numBatches: number,
  group: ProcessGroup | null,
  device: ReturnType<typeof openDevice>,
): Promise<Found> {
  using model = new Decoder(config(), { device }).initialize(3);
  const { rank = 0, size = 1 } = group ?? {};
  using optimizer = new AdamW(model.trainableParameters(), { ...settings, shards: group?.shards });
  using step = new TrainStep(model, optimizer, { policy, group, maxGradNorm: 0.5 });
  device.arena.resetPeak();
  const found: Found = { losses: [], norms: [], weights: new Map(), peakBytes: 0 };
  for (let s = 0; s < numSteps; s++) {
    const own = Array.from({ length: numBatches / size }, (_, i) => batch(s * numBatches + i * size + rank));
    const { loss, gradNorm } = await step.run(own, { learningRate: 1 });
    found.losses.push(await loss);
    found.norms.push(await gradNorm);
  }
  found.peakBytes = device.memory().peakBytes;
  for (const [name, parameter] of model.namedParameters()) found.weights.set(name, await parameter.toFloat32());
  return found;
}

const open = () => openDevice('cpu', { threads: 1, memoryLimit: 2 ** 28 });

const onGroup = (size: number, numSteps: number, numBatches: number) =>
  onRanks(size, async (place) => {
    const store = await RankStore.connect(place, { version: '1' });
    try {
      using device = open();
      using group = await ProcessGroup.join(store, device);
      const found = await train(numSteps, numBatches, group, device);
      await store.leave();
      return found;
    } finally {
      store.close();
    }
  });

function relativeError(a: Float32Array, b: Float32Array): number {
  const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
  return norm(a.map((x, i) => x - b[i]!)) / norm(b);
}

describe('steps whose ranks share the optimizer', () => {
  for (const size of [2, 4]) {
    itOnCpuRanks(
      `have the losses, norms and weights of one rank on ${size}, and the memory that meta says`,
      async () => {
        using device = open();
        const expected = await train(3, 8, null, device);
        const ranks = await onGroup(size, 3, 8);
        for (const [rank, found] of ranks.entries()) {
          for (const [i, loss] of found.losses.entries()) assert.ok(Math.abs(loss / expected.losses[i]! - 1) < 1e-6);
          for (const [i, norm] of found.norms.entries()) assert.ok(Math.abs(norm / expected.norms[i]! - 1) < 1e-5);
          for (const [name, weight] of found.weights) {
            assert.deepEqual(weight, ranks[0]!.weights.get(name), `${name} of rank ${rank}`);
            const error = relativeError(weight, expected.weights.get(name)!);
            assert.ok(error < 1e-5, `${name}: ${error}`);
          }
          const shards = new Shards(rank, size);
          const { peakBytes } = simulateStep({
            ...{ config: config(), B: 1, T, policy, like, shards },
            accumulationSteps: 8 / size,
          });
          assert.equal(found.peakBytes, peakBytes, `rank ${rank}`);
        }
      },
    );
  }

  it('refuse an optimizer with the states of another rank', () => {
    using device = openDevice('meta');
    using model = new Decoder(config(), { device });
    using optimizer = new AdamW(model.trainableParameters(), { shards: new Shards(1, 2) });
    assert.throws(() => new TrainStep(model, optimizer, { policy }), /states of rank 1 of 2 alone, and group is null/);
    const group = { rank: 0, size: 2 } as ProcessGroup;
    assert.throws(() => new TrainStep(model, optimizer, { policy, group }), /rank 1 of 2, and group is of rank 0 of 2/);
  });
});
