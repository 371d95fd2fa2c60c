// Steps of ranks that share sequences: the losses of one rank, and the memory that `meta` says.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  decoderConfig,
  type HostBatch,
  openDevice,
  type ProcessGroup,
  type StepPolicy,
  simulateStep,
  TrainStep,
} from '../../lib/index.ts';
import { integers } from '../support/random.ts';
import { itOnCpuRanks } from '../support/ranks.ts';
import { tinyLlama } from '../support/runs.ts';
import { inGroups } from '../support/sequence_ranks.ts';

const policy: StepPolicy = { mlpChunkSize: 16, lossChunkSize: 25, mlpSave: 'input', recompute: 'attention' };
const [B, T] = [2, 33];

/** Micro-batch i of a step; the targets repeat, so that the loss falls. */
function batchOf(step: number, i: number, isPacked = false): HostBatch {
  const ids = integers(B * (T + 1), 7, 10 * step + i);
  const of = (shift: number) => Int32Array.from({ length: B * T }, (_, n) => ids[n + shift]!);
  const documentStart = isPacked ? Int32Array.from({ length: B * T }, (_, n) => n - ((n % T) % 9)) : null;
  return { inputs: of(0), targets: of(1), T, documentStart };
}

interface Training {
  numSteps: number;
  /** Numbers of the micro-batches of a step that this process has. */
  numbers: readonly number[];
  hasLora: boolean;
  inBackward?: boolean;
}

async function lossesOf(
  { numSteps, numbers, hasLora, inBackward = false }: Training,
  device: Device,
  { group = null, sequence = 1 }: { group?: ProcessGroup | null; sequence?: number } = {},
): Promise<number[]> {
  using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
  if (hasLora) addLora(model, { rank: 4, dropout: 0.2, seed: 1 });
  using optimizer = new AdamW(model.trainableParameters());
  using trainStep = new TrainStep(model, optimizer, { policy, group, sequence, inBackward });
  const losses: number[] = [];
  for (let step = 1; step <= numSteps; step++) {
    const batches = numbers.map((i) => batchOf(step, i));
    const { loss, gradNorm } = await trainStep.run(batches, { learningRate: 3e-3 });
    losses.push(await loss, await gradNorm);
  }
  return losses;
}

describe('steps of ranks that share sequences', () => {
  for (const hasLora of [false, true]) {
    itOnCpuRanks(
      `have the losses of one rank: 2 × 2 ranks, ${hasLora ? 'adapters with dropout' : 'all parameters'}`,
      async () => {
        const numSteps = hasLora ? 5 : 20;
        using device = openDevice('cpu', { threads: 1 });
        const expected = await lossesOf({ numSteps, numbers: hasLora ? [0, 1, 2, 3] : [0, 1], hasLora }, device);
        const found = await inGroups(4, (group, device) => {
          const place = Math.floor(group.rank / 2);
          return lossesOf({ numSteps, numbers: hasLora ? [place, 2 + place] : [place], hasLora }, device, {
            group,
            sequence: 2,
          });
        });
        if (!hasLora) assert.ok(expected.at(-2)! < 0.7 * expected[0]!, 'the loss has not fallen');
        for (const losses of found) {
          for (const [i, value] of losses.entries()) {
            const error = Math.abs(value - expected[i]!) / expected[i]!;
            assert.ok(error < 1e-5, `step ${1 + Math.floor(i / 2)}: ${value}, one rank ${expected[i]}`);
          }
        }
      },
    );
  }

  itOnCpuRanks('with the step in the backward', async () => {
    using device = openDevice('cpu', { threads: 1 });
    const training = { numSteps: 4, numbers: [0], hasLora: false, inBackward: true };
    const expected = await lossesOf(training, device);
    for (const losses of await inGroups(2, (group, device) => lossesOf(training, device, { group, sequence: 2 }))) {
      for (const [i, value] of losses.entries()) assert.ok(Math.abs(value - expected[i]!) < 1e-5 * expected[i]!);
    }
  });

  itOnCpuRanks('take the memory that meta says, to the byte', async () => {
    const config = decoderConfig({ ...tinyLlama, num_attention_heads: 8, head_dim: 8, num_key_value_heads: 2 });
    const policies: StepPolicy[] = [
      policy,
      { ...policy, recompute: 'none', mlpSave: 'gateUp' },
      { ...policy, recompute: 'attentionSegments', slots: 2 },
      { ...policy, recompute: 'layer', attentionHeadGroups: 2 },
    ];
    for (const sequence of [2, 4]) {
      await inGroups(sequence, async (group, device) => {
        for (const [i, policy] of policies.entries()) {
          const isPacked = i % 2 === 1;
          using model = new Decoder(config, { device, dtype: 'bfloat16' }).initialize(1);
          using optimizer = new AdamW(model.trainableParameters());
          using trainStep = new TrainStep(model, optimizer, { policy, group, sequence });
          device.arena.resetPeak();
          const { loss } = await trainStep.run([batchOf(1, 0, isPacked)], { learningRate: 1e-3 });
          assert.ok(Number.isFinite(await loss));
          const step = { config, B, T, isPacked, sequence, policy, dtype: 'bfloat16', like: device.target } as const;
          const measured = { ...device.memory(), numAllocations: 0 };
          assert.deepEqual(measured, { ...simulateStep(step), numAllocations: 0 }, `${sequence} ranks, policy ${i}`);
        }
      });
    }
  });

  it('are refused where they do not divide the ranks', () => {
    using device = openDevice('cpu', { threads: 1 });
    using model = new Decoder(decoderConfig(tinyLlama), { device });
    using optimizer = new AdamW(model.trainableParameters());
    const make = (sequence: number, size: number) => {
      const group = { rank: 0, size } as ProcessGroup;
      return () => new TrainStep(model, optimizer, { policy, group, sequence });
    };
    assert.throws(make(4, 6), /RangeError: TrainStep: sequence 4 must divide the 6 ranks of group/);
    assert.throws(make(3, 6), /RangeError: ranks that share sequences: 3 must divide the 4 query heads/);
    assert.throws(make(0, 6), /sequence must be/);
  });
});
