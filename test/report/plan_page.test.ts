// The page of `minisequence plan --html`: its figures are those of simulateStep.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decoderConfig, simulateStep } from '../../lib/index.ts';
import type { Plot } from '../../lib/report/plots.ts';
import { memoryByLength } from '../../lib/step/by_length.ts';
import { plainPolicy } from '../../lib/step/plan.ts';
import { runCommand } from '../support/command.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const like = { kind: 'cuda', attention: 'cudnn' } as const;

describe('the page of a plan', () => {
  it('has memory by length and through the step, as predicted', () => {
    const folder = newFolder();
    const [config, html] = [join(folder, 'config.json'), join(folder, 'plan.html')];
    writeFileSync(config, JSON.stringify(tinyLlama));
    const args = ['--model', config, '--memory', '40MiB', '--sequence-length', '4096', '--dtype', 'float32'];
    const { policy, memory } = JSON.parse(runCommand(['plan', ...args, '--html', html, '--json']));
    const text = readFileSync(html, 'utf8');
    const data = /<script type="application\/json" id="data">(.*)<\/script>/.exec(text)![1]!;
    const { plots } = JSON.parse(data) as { plots: Plot[] };
    assert.deepEqual(
      plots.map(({ id }) => id),
      ['ways', 'rungs', 'timeline'],
    );
    const [ways, rungs, timeline] = plots as [Plot, Plot, Plot];
    assert.equal(ways.x.at(-1), 5120);
    const T = ways.x[3]!;
    const step = { config: decoderConfig(tinyLlama), B: 1, T, dtype: 'float32', like } as const;
    const bytesOf = (plot: Plot, label: string) => plot.series.find((one) => one.label === label)!.values[3];
    const plain = plainPolicy(T);
    assert.equal(bytesOf(ways, 'plain'), simulateStep({ ...step, policy: plain }).reservedBytes);
    const again = { ...plain, recompute: 'layer', mlpSave: 'input' } as const;
    assert.equal(bytesOf(ways, 'recomputation'), simulateStep({ ...step, policy: again }).reservedBytes);
    const least = Math.min(...rungs.series.map(({ values }) => values[3]!));
    assert.equal(bytesOf(ways, 'the least that is planned'), least);
    assert.ok(least < bytesOf(ways, 'mini-sequences')!);
    assert.ok(bytesOf(ways, 'mini-sequences')! < bytesOf(ways, 'plain')!);
    assert.equal(simulateStep({ ...step, T: 4096, policy }).reservedBytes, memory.reservedBytes);
    const sums = timeline.x.map((_, i) => timeline.series.reduce((sum, { values }) => sum + values[i]!, 0));
    assert.equal(Math.max(...sums), memory.peakBytes);
  });

  it('has a line for each kind of policy, none for those that are fixed away', () => {
    const config = decoderConfig(tinyLlama);
    const kinds = (fixed: object) =>
      memoryByLength(config, { B: 1, like, fixed }, [64, 128]).rungs.map(({ recompute }) => recompute);
    assert.deepEqual(kinds({ recompute: 'layer', mlpSave: 'input' }), ['layer']);
    assert.deepEqual(new Set(kinds({})), new Set(['none', 'attention', 'layer']));
  });
});
