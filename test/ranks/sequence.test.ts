// Ranks that share sequences: loss and every gradient are those of one rank.
import assert from 'node:assert/strict';
import { decoderConfig, type StepPolicy, simulateStep, tensor } from '../../lib/index.ts';
import { HeadExchange } from '../../lib/ops/head_exchange.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { sources, tiny } from '../support/families.ts';
import { itOnCpuRanks } from '../support/ranks.ts';
import { inGroups, requireEqual, type SequenceCase } from '../support/sequence_ranks.ts';

const base = { mlpChunkSize: 5, lossChunkSize: 7, mlpSave: 'input' } as const;
const layer: StepPolicy = { ...base, recompute: 'layer' };
const policies: StepPolicy[] = [
  { ...base, recompute: 'none', mlpSave: 'gateUp' },
  { ...base, recompute: 'attention' },
  { ...base, recompute: 'attentionSegments', slots: 2 },
  layer,
  { ...base, recompute: 'segments', slots: 2 },
];
const llama = { ...tiny, ...sources.llama };
const heads = (H: number, G: number) => ({ ...llama, num_attention_heads: H, num_key_value_heads: G });

describe('all_to_all', () => {
  itOnCpuRanks('gives each rank of a part of the group the rows that are for it', async () => {
    const found = await inGroups(5, async (group, device) => {
      const first = group.rank < 2 ? 0 : 2;
      const size = group.rank < 2 ? 2 : 3;
      const results: number[][] = [];
      for (const dtype of ['float32', 'bfloat16', 'float64'] as const) {
        using x = tensor(
          Array.from({ length: size * 2 * 3 }, (_, i) => 10 * group.rank + Math.floor(i / 6)),
          { shape: [size * 2, 3], dtype, device },
        );
        using y = tensor(new Array(size * 6).fill(-1), { shape: [size * 2, 3], dtype, device });
        kernels.all_to_all(x, y, { first, size });
        results.push([...(await y.toFloat32())].filter((_, i) => i % 6 === 0 || i % 6 === 5));
      }
      return results;
    });
    for (const [rank, results] of found.entries()) {
      const [first, size] = rank < 2 ? [0, 2] : [2, 3];
      const expected = Array.from({ length: size }, (_, i) => 10 * (first + i) + rank - first);
      for (const result of results)
        assert.deepEqual(
          result,
          expected.flatMap((value) => [value, value]),
        );
    }
  });

  itOnCpuRanks('refuses what does not match', async () => {
    await inGroups(2, async (_, device) => {
      using x = tensor([1, 2, 3], { shape: [3, 1], device });
      const fails = async (first: number, size: number, pattern: RegExp) => {
        using y = tensor([0, 0, 0], { shape: [3, 1], device });
        kernels.all_to_all(x, y, { first, size });
        await assert.rejects(y.data(), pattern);
      };
      await fails(0, 2, /all_to_all: x float32\(3,1\) has no equal parts for ranks 0 to 1/);
      await fails(0, 3, /all_to_all: ranks 0 to 2 on rank \d of 2/);
    });
  });
});

describe('ranks that share sequences', () => {
  itOnCpuRanks('have the loss and gradients of one in every family', async () => {
    const cases: Record<string, SequenceCase> = {};
    for (const [name, source] of Object.entries(sources))
      cases[name] = { source: { ...tiny, ...source }, policy: layer };
    await requireEqual(2, cases, 1e-10);
  });

  itOnCpuRanks('with every recomputation, by groups of heads too, with adapters and dropout', async () => {
    const cases: Record<string, SequenceCase> = {};
    const source = { ...heads(8, 4), num_hidden_layers: 3 };
    for (const policy of policies) {
      for (const attentionHeadGroups of [1, 2]) {
        const name = `${policy.recompute}, ${attentionHeadGroups} groups`;
        const ofCase = { source, policy: { ...policy, attentionHeadGroups } };
        cases[name] = { ...ofCase, hasLora: true };
        cases[`${name}, packed, one sequence`] = { ...ofCase, B: 1, T: 14, isPacked: true };
      }
    }
    await requireEqual(2, cases, 1e-10);
  });

  itOnCpuRanks('with fewer key/value heads than ranks, and numbers that neither divides', async () => {
    const cases: Record<string, SequenceCase> = {
      'one key/value head': { source: heads(4, 1), policy: layer },
      'two, in groups': { source: heads(8, 2), policy: { ...layer, attentionHeadGroups: 2 } },
      'six of 12': { source: heads(12, 6), policy: layer },
      'six of 24, in groups': { source: heads(24, 6), policy: { ...layer, attentionHeadGroups: 3 }, isPacked: true },
    };
    await requireEqual(4, cases, 1e-10);
    await requireEqual(3, { 'two of 6': { source: heads(6, 2), policy: layer } }, 1e-10);
  });

  itOnCpuRanks('with fewer tokens than ranks, ranks without a target, packed windows, in f32', async () => {
    const windows = { ...tiny, ...sources.gemma3, max_position_embeddings: 64 };
    const cases: Record<string, SequenceCase> = {
      '3 tokens': { source: llama, policy: layer, T: 3 },
      'targets at the end': { source: llama, policy: policies[1]!, T: 17, firstTarget: 14 },
      'packed windows': { source: windows, policy: policies[1]!, T: 22, isPacked: true },
      f32: { source: llama, policy: layer, T: 22, isPacked: true, dtype: 'float32' },
    };
    const { f32, ...others } = cases;
    await requireEqual(4, others, 1e-10);
    await requireEqual(4, { f32: f32! }, 1e-5);
  });

  it('are refused where they do not divide the query heads, or the heads of a group', () => {
    const config = decoderConfig(heads(8, 4));
    const run = (sequence: number, attentionHeadGroups = 1) =>
      simulateStep({ config, B: 1, T: 8, sequence, policy: { ...layer, attentionHeadGroups } });
    run(8);
    run(4, 2);
    assert.throws(
      () => run(3),
      /RangeError: ranks that share sequences: 3 must divide the 8 query heads of every layer/,
    );
    assert.throws(
      () => run(8, 2),
      /RangeError: attentionHeadGroups: 8 ranks must divide the 4 query heads of a group, got 2 groups/,
    );
    assert.throws(
      () => new HeadExchange({ first: 0, size: 2, rank: 0 }, 7, 4),
      /T 7 must be a multiple of the 2 ranks/,
    );
  });
});
