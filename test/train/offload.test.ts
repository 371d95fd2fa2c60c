// Runs that keep inputs of layers in host memory: the losses and the model of the run that does not, also continued; and what is refused.
import assert from 'node:assert/strict';
import { OutOfMemoryError } from '../../lib/index.ts';
import { linesOf, modelOf, newFolder, run, tinyLlama } from '../support/runs.ts';

const config = { ...tinyLlama, num_hidden_layers: 4 };
const common = { model: { config }, maxSteps: 6, checkpoint: { everySteps: 2 }, deterministic: true } as const;
const kept = { ...common, recompute: 'layer' } as const;
const offloaded = { ...kept, hostMemoryLimit: '1MiB', offloadedInputs: 3 } as const;
/** Of one sequence of 64. */
const bytes = 3 * 64 * config.hidden_size * 4;

/** Lines of metrics.jsonl without the memory. */
const numbersOf = async (outDir: string) =>
  ((await linesOf(outDir)) as { peakBytes?: number }[]).map(({ peakBytes, ...rest }) => rest);

describe('a run with inputs of layers in host memory', () => {
  it('has the losses and the model of the run that keeps them, and continues exactly', async () => {
    const whole = await run({ ...kept });
    const outDir = newFolder();
    const stop = new AbortController();
    await run({ ...offloaded, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 3 && stop.abort() });
    const { policy } = await run({ ...offloaded, outDir }, { resume: true });
    assert.equal(policy.offloadedInputs, 3);
    assert.deepEqual(await numbersOf(outDir), await numbersOf(whole.outDir));
    assert.ok((await modelOf(outDir)).equals(await modelOf(whole.outDir)));
  });

  it('takes exactly the host memory that it needs, and is refused before its first step without it', async () => {
    let numSteps = 0;
    const onStep = () => {
      numSteps += 1;
    };
    await run({ ...offloaded, hostMemoryLimit: bytes, maxSteps: 1 }, { onStep });
    assert.equal(numSteps, 1);
    await assert.rejects(run({ ...offloaded, hostMemoryLimit: bytes - 1 }, { onStep }), (error: Error) => {
      assert.ok(error instanceof OutOfMemoryError);
      assert.match(error.message, /24\.00 KiB for inputs of layers do not fit in hostMemoryLimit 24\.00 KiB/);
      return true;
    });
    assert.equal(numSteps, 1);
  });
});
