// Tests of every family's case against PyTorch under several policies.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { decoderConfig, type StepPolicy } from '../../lib/index.ts';
import { mostHeadGroups } from '../../lib/models/head_groups.ts';
import { openTestDevice } from './devices.ts';
import { limitsOf, parityCases, runParityCase } from './parity.ts';

const whole = 2 ** 30;
export const parityPolicies: Record<string, StepPolicy> = {
  'everything saved, whole': { mlpChunkSize: whole, lossChunkSize: whole, mlpSave: 'gateUp', recompute: 'none' },
  'ragged chunks, everything else saved': { mlpChunkSize: 29, lossChunkSize: 37, mlpSave: 'input', recompute: 'none' },
  "ragged chunks, recompute: 'attention'": {
    mlpChunkSize: 29,
    lossChunkSize: 37,
    mlpSave: 'input',
    recompute: 'attention',
  },
  "ragged chunks, recompute: 'layer'": { mlpChunkSize: 13, lossChunkSize: 31, mlpSave: 'gateUp', recompute: 'layer' },
};

/** The same with attention's heads in groups, for families that allow them. */
const groupsOf = (folder: string): number =>
  mostHeadGroups(decoderConfig(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))));
const inGroups: Record<string, StepPolicy> = {
  "heads in groups, recompute: 'layer'": parityPolicies["ragged chunks, recompute: 'layer'"]!,
  "heads in groups, recompute: 'segments'": {
    mlpChunkSize: 29,
    lossChunkSize: 37,
    mlpSave: 'input',
    recompute: 'segments',
  },
};

type Wanted = (policy: string, dtype: 'float32' | 'bfloat16') => boolean;

/** What `npm test` runs of them; the longer tests run the others. */
export const isQuick: Wanted = (policy, dtype) =>
  dtype === 'float32' ? !policy.startsWith('ragged') || policy.endsWith("'layer'") : policy.endsWith('whole');

/** Registers the tests of the policies and dtypes that are wanted. */
export function parityTests(isWanted: Wanted): void {
  for (const folder of parityCases('test/fixtures/parity')) {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const groups = groupsOf(folder);
      const grouped = Object.entries(inGroups).map(
        ([name, policy]) => [name, { ...policy, attentionHeadGroups: groups }] as const,
      );
      for (const [name, policy] of [...Object.entries(parityPolicies), ...(groups > 1 ? grouped : [])]) {
        if (!isWanted(name, dtype)) continue;
        it(`${basename(folder)}, ${dtype}: ${name}`, async () => {
          using device = openTestDevice();
          const errors = await runParityCase(folder, device, policy, dtype);
          const limits = limitsOf(folder, device.target.kind, dtype);
          for (const key of ['loss', 'gradient', 'losses', 'gradNorms'] as const) {
            assert.ok(
              errors[key] <= limits[key],
              `${key}: ${errors[key]} is over ${limits[key]} (${errors.worstGradient})`,
            );
          }
          assert.equal(device.memory().liveBytes, 0, 'bytes left behind');
        });
      }
    }
  }
}
