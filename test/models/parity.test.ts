// The decoder against PyTorch and transformers, in f32 and bf16.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { decoderConfig, type StepPolicy } from '../../lib/index.ts';
import { mostHeadGroups } from '../../lib/models/head_groups.ts';
import { openTestDevice } from '../support/devices.ts';
import { parityCases, parityLimits, runParityCase } from '../support/parity.ts';

const whole = 2 ** 30;
const policies: Record<string, StepPolicy> = {
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
  "heads in groups, recompute: 'layer'": policies["ragged chunks, recompute: 'layer'"]!,
  "heads in groups, recompute: 'segments'": {
    mlpChunkSize: 29,
    lossChunkSize: 37,
    mlpSave: 'input',
    recompute: 'segments',
  },
};

describe('parity with PyTorch', () => {
  it('holds for the kernels that need no library', async () => {
    using device = openTestDevice({ attention: 'own', products: 'own' });
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const errors = await runParityCase(
        'test/fixtures/parity/llama',
        device,
        policies['ragged chunks, everything else saved']!,
        dtype,
      );
      const limits = parityLimits[device.target.kind][dtype];
      for (const key of ['loss', 'gradient', 'losses', 'gradNorms'] as const) {
        assert.ok(errors[key] <= limits[key], `${dtype} ${key}: ${errors[key]} is over ${limits[key]}`);
      }
    }
  });

  for (const [name, policy] of Object.entries(policies)) {
    for (const family of ['llama', 'gemma2', 'qwen2']) {
      it(`holds for bf16 gradients: ${family}, ${name}`, async () => {
        using device = openTestDevice();
        const errors = await runParityCase(`test/fixtures/parity/${family}`, device, policy, 'bfloat16', 'bfloat16');
        const limits = parityLimits[device.target.kind].bfloat16;
        for (const key of ['loss', 'gradient', 'losses', 'gradNorms'] as const) {
          assert.ok(errors[key] <= limits[key], `${key}: ${errors[key]} is over ${limits[key]}`);
        }
        assert.equal(device.memory().liveBytes, 0, 'bytes left behind');
      });
    }
  }

  for (const folder of parityCases('test/fixtures/parity')) {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const groups = groupsOf(folder);
      const grouped = Object.entries(inGroups).map(
        ([name, policy]) => [name, { ...policy, attentionHeadGroups: groups }] as const,
      );
      for (const [name, policy] of [...Object.entries(policies), ...(groups > 1 ? grouped : [])]) {
        it(`${basename(folder)}, ${dtype}: ${name}`, async () => {
          using device = openTestDevice();
          const errors = await runParityCase(folder, device, policy, dtype);
          const limits = parityLimits[device.target.kind][dtype];
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
});
