// Commands captured as one graph, which the benchmarks replay: on CUDA; the CPU refuses.
import assert from 'node:assert/strict';
import { tensor, zeros } from '../../lib/index.ts';
import { addon, kernels } from '../../lib/runtime/native.ts';
import { itOnCpu, openTestDevice, testDevice, valuesOf } from '../support/devices.ts';

describe('capture', () => {
  if (testDevice !== 'cpu') {
    it('runs the commands at each replay, and not before', async () => {
      using device = openTestDevice();
      const { id } = device;
      using sum = zeros([3], { device }).keep();
      using step = tensor([1, 2, 3], { device }).keep();
      const add = () => kernels.add_to(step, sum);
      add(); // loads the kernel
      await device.synchronize();
      addon().begin_capture(id!);
      add();
      add();
      addon().end_capture(id!);
      assert.deepEqual([...(await valuesOf(sum))], [1, 2, 3]);
      for (let i = 0; i < 3; i++) addon().replay(id!);
      assert.deepEqual([...(await valuesOf(sum))], [7, 14, 21]);
    });
  }

  itOnCpu('is refused by the CPU, and the device goes on', async () => {
    using device = openTestDevice();
    addon().begin_capture(device.id!);
    await assert.rejects(device.synchronize(), /only CUDA devices capture and replay commands/);
    using ones = tensor([1, 1], { device }).keep();
    assert.deepEqual([...(await valuesOf(ones))], [1, 1]);
  });
});
