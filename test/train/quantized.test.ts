// Runs with model.quantization nf4: the command line's four steps, continuing, what is refused.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runMerge } from '../../lib/cli/merge.ts';
import { loadAdapter, loadModel, mergeLora, parseConfig, simulateStep } from '../../lib/index.ts';
import { readAdapterConfig } from '../../lib/io/adapter_config.ts';
import { quantizedBaseOf } from '../../lib/io/adapters.ts';
import { runCommand } from '../support/command.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';
import { floatsOf } from '../support/folders.ts';
import { linesOf, newFolder, run, stepsIn, tinyModelFolder, tinyRun } from '../support/runs.ts';

const lora = { rank: 3, dropout: 0.1 };
const Q = 'model.layers.1.self_attn.q_proj.weight';

describe('a run with projections in 4 bits', () => {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    it(`stops and goes on bit for bit, and takes what is planned to the byte: ${dtype}`, async () => {
      const path = await tinyModelFolder();
      const common = {
        model: { path, quantization: 'nf4' },
        lora,
        dtype,
        maxSteps: 6,
        checkpoint: { everySteps: 2 },
      } as const;
      const whole = await run(common);
      const outDir = newFolder();
      const stop = new AbortController();
      await run({ ...common, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 3 && stop.abort() });
      assert.ok((await stepsIn(outDir)).length > 0);
      const last = await run({ ...common, outDir }, { resume: true });
      assert.equal(last.finished, true);
      assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
      const bytes = (folder: string) => readFile(join(folder, 'adapter_model.safetensors'));
      assert.ok((await bytes(outDir)).equals(await bytes(whole.outDir)));
      await assert.rejects(
        run({ ...common, model: { path }, outDir, maxSteps: 9 }, { resume: true }),
        /model\.quantization/,
      );
      using device = openTestDevice();
      using model = await loadModel(path, { device, dtype, quantization: 'nf4' });
      const { config } = model;
      const { policy } = whole;
      const planned = simulateStep({ config, B: 1, T: 64, dtype, lora, policy, like: device.target });
      assert.equal(whole.peakBytes, planned.reservedBytes);
    });
  }

  itOnCpu(
    'has an adapter that PEFT reads, which is merged into what it was trained on, or into another base',
    async () => {
      const path = await tinyModelFolder();
      const { outDir } = await run({ model: { path, quantization: 'nf4' }, lora, dtype: 'bfloat16', maxSteps: 3 });
      assert.deepEqual(await quantizedBaseOf(outDir), { quantization: 'nf4', dtype: 'bfloat16' });
      await readAdapterConfig(outDir);
      const [merged, onto] = [newFolder(), newFolder()];
      await runMerge({ model: path, adapter: outDir, out: merged });
      await runMerge({ model: path, adapter: outDir, out: onto, quantization: 'none' });
      using device = openTestDevice();
      using expected = await loadModel(path, { device, dtype: 'bfloat16', quantization: 'nf4' });
      await loadAdapter(expected, outDir, { dtype: 'float32' });
      mergeLora(expected);
      assert.deepEqual(await floatsOf(merged, Q), await expected.namedParameters().get(Q)!.toFloat32());
      using plain = await loadModel(path, { device });
      await loadAdapter(plain, outDir);
      mergeLora(plain);
      assert.deepEqual(await floatsOf(onto, Q), await plain.namedParameters().get(Q)!.toFloat32());
      const { dtype } = JSON.parse(await readFile(join(merged, 'config.json'), 'utf8'));
      assert.equal(dtype, 'bfloat16');
      const text = runCommand(
        [
          'generate',
          '--model',
          path,
          '--adapter',
          outDir,
          '--tokenizer',
          'bytes',
          '--prompt',
          'The',
          '--quantization',
          'nf4',
        ].concat(['--dtype', 'bfloat16', '--device', 'cpu', '--max-tokens', '4', '--json']),
      );
      assert.equal(text.trim().split('\n').length, 4);
    },
  );

  it('needs adapters', () => {
    assert.throws(
      () => parseConfig(tinyRun({ model: { path: 'x', quantization: 'nf4' } })),
      /model\.quantization: freezes the projections, which no step could change: give lora\.rank/,
    );
    assert.throws(
      () => parseConfig(tinyRun({ model: { path: 'x', quantization: 'int8' as never }, lora })),
      /model: must be either { path: FOLDER } \(with quantization: nf4\) or/,
    );
  });
});
