// The events of a run: each once, in order, to everybody who listens and to the files that keep them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig, type RunEvent, train } from '../../lib/index.ts';
import { tinyRun } from '../support/runs.ts';

const options = {
  maxSteps: 4,
  data: { ...tinyRun().data, validation: { fraction: 0.2 } },
  evaluation: { everySteps: 2 },
  samples: { everySteps: 4, prompts: ['The'], maxTokens: 2 },
  checkpoint: { everySteps: 2 },
};

const linesOf = (path: string) =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('events of a run', () => {
  it('come once each, in order, with what is kept of them in the files already', async () => {
    const config = parseConfig(tinyRun(options));
    const metrics = join(config.outDir, 'metrics.jsonl');
    const events: RunEvent[] = [];
    const kept: unknown[] = [];
    const onEvent = (event: RunEvent) => {
      events.push(event);
      if (event.type !== 'step' && event.type !== 'evaluation') return;
      kept.push(event.metrics);
      assert.deepEqual(linesOf(metrics), kept);
    };
    const result = await train(config, { onEvent });
    const names = events.map((event) => {
      if (event.type === 'step' || event.type === 'evaluation') return `${event.type} ${event.metrics.step}`;
      if (event.type === 'checkpoint') return `checkpoint ${event.step}`;
      return event.type;
    });
    assert.deepEqual(names, [
      'start',
      ...['step 1', 'step 2', 'evaluation 2', 'checkpoint 2'],
      ...['step 3', 'step 4', 'evaluation 4', 'sample', 'checkpoint 4'],
      'end',
    ]);
    assert.deepEqual(events.at(-1), { type: 'end', result });
    const samples = events.flatMap((event) => (event.type === 'sample' ? [event.sample] : []));
    assert.deepEqual(linesOf(join(config.outDir, 'samples.jsonl')), samples);
  });

  it('reach the function of their type as they reach onEvent', async () => {
    const told: unknown[] = [];
    const byType: unknown[] = [];
    await train(parseConfig(tinyRun({ ...options, schedule: { type: 'linear', warmupSteps: 4 } })), {
      onEvent: (event) => event.type !== 'checkpoint' && event.type !== 'end' && told.push(event),
      onStart: (start) => byType.push({ type: 'start', start }),
      onStep: (metrics, numSteps) => byType.push({ type: 'step', metrics, numSteps }),
      onEvaluation: (metrics) => byType.push({ type: 'evaluation', metrics }),
      onSample: (sample) => byType.push({ type: 'sample', sample }),
      onSkip: (message) => byType.push({ type: 'skip', message }),
      onWarning: (warning) => byType.push({ type: 'warning', warning }),
    });
    assert.ok(told.some((event) => (event as RunEvent).type === 'warning'));
    assert.deepEqual(byType, told);
  });

  it("have no 'end' if the run fails or a listener throws", async () => {
    const types: string[] = [];
    const onEvent = ({ type }: RunEvent) => {
      types.push(type);
      if (type === 'step') throw new Error('enough of it');
    };
    await assert.rejects(train(parseConfig(tinyRun(options)), { onEvent }), /enough of it/);
    assert.deepEqual(types, ['start', 'step']);
  });
});
