// What a step keeps, rung by rung: its memory is what `meta` says, to the byte. Each pair of what it depends on; test/slow has the product.
import assert from 'node:assert/strict';
import { hasFloat64 } from '../support/devices.ts';
import { pairwise } from '../support/pairwise.ts';
import { deviceOfStep, factors, isAllowed, nameOf, requirePlannedMemory } from '../support/step_memory.ts';
import { touchedBytes } from '../support/touched.ts';

describe('a step takes what meta says, to the byte', () => {
  for (const choice of pairwise(factors, isAllowed)) {
    it(nameOf(choice), async () => {
      using device = deviceOfStep();
      const { reservedBytes, peakBytes, peak } = await requirePlannedMemory(device, choice);
      if (!hasFloat64) return; // pages are of the host's memory
      const touched = touchedBytes(device.address(0));
      assert.ok(touched <= reservedBytes, `${touched} bytes touched, ${reservedBytes} reserved`);
      // Workspaces are sized for the worst case, which these small products are not.
      assert.ok(touched >= peakBytes - peak.workspace, `${touched} bytes touched, ${peakBytes} at the peak`);
    });
  }
});
