// The factor that clips gradients: on the host, for a norm of the step before, as on the device.
import assert from 'node:assert/strict';
import { tensor, zeros } from '../../lib/index.ts';
import { factorOf } from '../../lib/optim/clip.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { debugDevice, hasFloat64, leavingNothing } from '../support/devices.ts';

const NORMS = [
  0,
  5e-324,
  1e-310,
  1e-45,
  1e-38,
  1e-20,
  1e-7,
  9.99999e-7,
  1e-6,
  0.1,
  0.5,
  1,
  1 + 2 ** -52,
  2,
  3.7,
  1e5,
  1e18,
  1e150,
  1e200,
];
const LIMITS = [0, 5e-324, 1e-40, 1e-6, 0.3, 1, 2, 1e3, 1e38, 1e300];

describe('the factor of clipping', () => {
  it('is on the host what the device computes of the same norm, to the bit', function () {
    if (!hasFloat64) return this.skip();
    return leavingNothing(debugDevice(), async () => {
      const device = debugDevice();
      for (const norm of [...NORMS, ...[Infinity, -Infinity, Number.NaN]]) {
        for (const limit of LIMITS) {
          using sums = tensor(Float64Array.of(norm * norm), { device });
          using found = zeros([1], { dtype: 'float64', device });
          using factor = zeros([1], { dtype: 'float64', device });
          kernels.clip_factor(sums, found, factor, limit);
          const [ofDevice] = await factor.data();
          const [root] = await found.data();
          const ofHost = factorOf(Number(root), limit);
          assert.ok(
            Object.is(ofHost, ofDevice),
            `norm ${root}, maxGradNorm ${limit}: ${ofHost}, on the device ${ofDevice}`,
          );
        }
      }
    });
  });
});
