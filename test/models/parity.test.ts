// The decoder against PyTorch and transformers, in f32 and bf16.
import assert from 'node:assert/strict';
import { hasFloat64, openTestDevice } from '../support/devices.ts';
import { parityLimits, runParityCase } from '../support/parity.ts';
import { isQuick, parityPolicies, parityTests } from '../support/parity_tests.ts';

describe('parity with PyTorch', () => {
  it('holds for the kernels that need no library', async () => {
    using device = openTestDevice({ attention: 'builtin', matmul: 'builtin' });
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const errors = await runParityCase(
        'test/fixtures/parity/llama',
        device,
        parityPolicies['ragged chunks, everything else saved']!,
        dtype,
      );
      const limits = parityLimits[device.target.kind][dtype];
      for (const key of ['loss', 'gradient', 'losses', 'gradNorms'] as const) {
        assert.ok(errors[key] <= limits[key], `${dtype} ${key}: ${errors[key]} is over ${limits[key]}`);
      }
    }
  });

  for (const [name, policy] of Object.entries(parityPolicies)) {
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

  parityTests((policy, dtype) => !hasFloat64 || isQuick(policy, dtype));
});
