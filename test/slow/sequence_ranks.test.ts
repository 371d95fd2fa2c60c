// Four ranks that share sequences: loss and gradients of every family, packed and by every recomputation, are those of one rank.
import { RECOMPUTE } from '../../lib/models/policy.ts';
import { sources, tiny } from '../support/families.ts';
import { itOnCpuRanks } from '../support/ranks.ts';
import { requireEqual, type SequenceCase } from '../support/sequence_ranks.ts';

const base = { mlpChunkSize: 5, lossChunkSize: 7, mlpSave: 'input' } as const;

describe('four ranks that share sequences', () => {
  for (const recompute of RECOMPUTE) {
    itOnCpuRanks(`have the loss and gradients of one in every family: ${recompute}`, async () => {
      const cases: Record<string, SequenceCase> = {};
      for (const [name, source] of Object.entries(sources)) {
        const policy = { ...base, recompute };
        const isPacked = !/rope|hunyuan/.test(name); // whose frequencies depend on the length
        const hasLora = name === 'qwen3';
        cases[name] = { source: { ...tiny, ...source }, policy, isPacked, hasLora };
      }
      await requireEqual(4, cases, 1e-10);
    });
  }
});
