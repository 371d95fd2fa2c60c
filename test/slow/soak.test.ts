// A long run, packed, evaluated, sampled, stopped and continued, keeps its memory and its handles.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { type Device, parseConfig, type RunConfigInput, train } from '../../lib/index.ts';
import { newFolder, textFile, tinyRun } from '../support/runs.ts';

const STEPS = 2000;
/** What a run may grow by in 800 steps, in bytes: garbage that has not been collected, not a tensor a step (16 KiB). */
const MOST_GROWTH = 12 * 2 ** 20;

interface Moment {
  step: number;
  liveBytes: number;
  reservedBytes: number;
  handles: number;
  rss: number;
}

async function watched(config: RunConfigInput, last: number): Promise<Moment[]> {
  const moments: Moment[] = [];
  const stop = new AbortController();
  let device: Device | null = null;
  await train(parseConfig(config), {
    resume: true,
    signal: stop.signal,
    onStart: ({ model }) => {
      device = model.device;
    },
    onStep: ({ step }) => {
      const { liveBytes, reservedBytes } = device!.memory();
      const handles = readdirSync('/proc/self/fd').length;
      moments.push({ step, liveBytes, reservedBytes, handles, rss: process.memoryUsage.rss() });
      if (step === last) stop.abort();
    },
  });
  return moments;
}

describe('a run of 2,000 steps', () => {
  it('keeps the arena and its handles exactly, and the process its size', async () => {
    const documents = Array.from({ length: 40 }, (_, i) =>
      textFile('The quick brown fox. '.repeat(3 + ((i * 7) % 11))),
    );
    const config = tinyRun({
      data: { files: documents, validation: { files: documents.slice(0, 5) } },
      sequenceLength: 128,
      batchSize: 2,
      accumulationSteps: 2,
      maxSteps: STEPS,
      evaluation: { everySteps: 50 },
      samples: { everySteps: 250, prompts: ['The quick '], maxTokens: 4 },
      checkpoint: { everySteps: 200 },
      outDir: newFolder(),
    });
    const halves = [await watched(config, STEPS / 2), await watched(config, STEPS)];
    assert.ok(halves.flat().length >= STEPS);
    const firsts = halves.map((moments) => moments[0]!);
    assert.equal(firsts[1]!.liveBytes, firsts[0]!.liveBytes, 'of a continued run');
    for (const moments of halves) {
      const [first] = moments;
      const most = Math.max(...moments.slice(0, 100).map(({ reservedBytes }) => reservedBytes));
      for (const { step, liveBytes, reservedBytes, handles } of moments) {
        assert.equal(liveBytes, first!.liveBytes, `live bytes after step ${step}`);
        assert.ok(reservedBytes <= most, `reserved bytes after step ${step}: ${reservedBytes} of ${most}`);
        assert.ok(handles <= first!.handles, `handles after step ${step}: ${handles}, ${first!.handles} at first`);
      }
      const rss = (from: number, to: number) => Math.min(...moments.slice(from, to).map((moment) => moment.rss));
      const growth = rss(900, 990) - rss(100, 190);
      assert.ok(growth < MOST_GROWTH, `the process has grown by ${growth} bytes`);
    }
  });
});
