// A long run, packed, evaluated, sampled, stopped and continued, keeps its memory and its handles.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Device, parseConfig, type RunConfigInput, train } from '../../lib/index.ts';
import { newFolder, textFile, tinyRun } from '../support/runs.ts';

const STEPS = 2000;
/** What JavaScript may hold more of after 800 steps, in bytes: their metrics, not a tensor a step (16 KiB, 12.5 MiB in all). */
const MOST_HELD = 6 * 2 ** 20;
/** What the process may grow by meanwhile: allocators keep pages for later, the more of them the more tests ran before. */
const MOST_GROWTH = 64 * 2 ** 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

interface Moment {
  step: number;
  liveBytes: number;
  reservedBytes: number;
  handles: number;
  /** After a collection; null where there was none. */
  host: { held: number; rss: number } | null;
}

function hostMemory(): Moment['host'] {
  collect();
  const { heapUsed, external, rss } = process.memoryUsage();
  return { held: heapUsed + external, rss };
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
      moments.push({ step, liveBytes, reservedBytes, handles, host: step % 50 === 0 ? hostMemory() : null });
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
      const least = (name: 'held' | 'rss', from: number, to: number) =>
        Math.min(...moments.slice(from, to).flatMap(({ host }) => (host ? [host[name]] : [])));
      const held = least('held', 890, 990) - least('held', 90, 190);
      assert.ok(held < MOST_HELD, `JavaScript holds ${held} bytes more`);
      const growth = least('rss', 890, 990) - least('rss', 90, 190);
      assert.ok(growth < MOST_GROWTH, `the process has grown by ${growth} bytes`);
    }
  });
});
