// The page of a run: what it holds, what it escapes, and that it is made of the run's files alone.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunEvent } from '../../lib/index.ts';
import { writeReport } from '../../lib/report/run_report.ts';
import { newFolder, run, tinyRun } from '../support/runs.ts';

const page = (folder: string) => readFileSync(join(folder, 'report.html'), 'utf8');
/** What the plots are drawn from. */
const plotsOf = (text: string) =>
  JSON.parse(/<script type="application\/json" id="data">(.*?)<\/script>/s.exec(text)![1]!).plots as {
    id: string;
    x: number[];
    series: { label: string; values: (number | null)[] }[];
  }[];

describe('report.html', () => {
  const hostile = '</script><script>alert(1)</script><!-- <img src=x onerror="alert(2)">';
  let outDir = '';
  let text = '';

  before(async () => {
    outDir = join(newFolder(), 'a <b>run');
    const data = { ...tinyRun().data, validation: { fraction: 0.2 } };
    const samples = { everySteps: 4, prompts: [hostile], maxTokens: 2 };
    await run({ outDir, maxSteps: 4, data, evaluation: { everySteps: 2 }, samples });
    text = page(outDir);
  });

  it('has the numbers of metrics.jsonl as plots and as tables', () => {
    const lines = readFileSync(join(outDir, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const steps = lines.map((line) => JSON.parse(line)).filter((line) => 'loss' in line);
    const plots = plotsOf(text);
    assert.deepEqual(
      plots.map(({ id }) => id),
      ['loss', 'learning-rate', 'gradient-norm', 'tokens-per-second', 'timeline'],
    );
    const [loss, rate] = plots;
    assert.deepEqual(loss!.x, [1, 2, 3, 4]);
    assert.deepEqual(
      loss!.series[0]!.values,
      steps.map((step) => step.loss),
    );
    assert.deepEqual(
      loss!.series[1]!.values.map((value) => value !== null),
      [false, true, false, true],
    );
    assert.deepEqual(
      rate!.series[0]!.values,
      steps.map((step) => step.learningRate),
    );
    for (const { loss } of steps) assert.ok(text.includes(`<td>${loss.toPrecision(5)}</td>`), `a table has ${loss}`);
  });

  it('says that the prediction was right to the byte, and whether the run has finished', () => {
    assert.match(text, /The prediction is right to the byte\./);
    assert.match(text, /Finished: step 4 of 4/);
  });

  it('has the bytes of a step: categories add up to the peak, and tensors are named', () => {
    const { series } = plotsOf(text).at(-1)!;
    const sums = series[0]!.values.map((_, i) => series.reduce((sum, { values }) => sum + values[i]!, 0));
    const { timeline } = JSON.parse(readFileSync(join(outDir, 'run.json'), 'utf8'));
    assert.equal(Math.max(...sums), timeline.memory.peakBytes);
    assert.match(text, /<th scope="row">\d+ x float32 \([\d,]+\)/);
  });

  it('escapes what comes from outside, and runs no script but its own', () => {
    assert.equal(text.match(/<script/g)!.length, 2);
    assert.equal(text.match(/<\/script/g)!.length, 2);
    assert.ok(!text.includes('<img'));
    assert.ok(!text.includes('<b>run'));
    assert.ok(text.includes('&lt;/script&gt;&lt;script&gt;alert(1)'), 'the sample is shown');
    assert.ok(text.includes('<h1>a &lt;b&gt;run</h1>'));
    assert.match(text, /script-src &#39;sha256-[\w+/]{43}=&#39;/);
  });

  it('fetches nothing', () => {
    assert.match(text, /default-src &#39;none&#39;/);
    assert.doesNotMatch(text.replace(/<script>.*<\/script>/s, ''), /<[^>]*\s(src|href)=/);
  });

  it('is made anew from the files of a run that was cut off in a line', async () => {
    const copy = newFolder();
    const of = (name: string) => readFileSync(join(outDir, name), 'utf8');
    const facts = { ...JSON.parse(of('run.json')), end: null };
    writeFileSync(join(copy, 'run.json'), JSON.stringify(facts));
    writeFileSync(join(copy, 'metrics.jsonl'), of('metrics.jsonl').trimEnd().slice(0, -9));
    const { run: read } = await writeReport(copy, { isUnderWay: true, refreshSeconds: 5 });
    assert.equal(read.steps.length + read.validations.length, 5);
    assert.match(page(copy), /Under way: step 4 of 4/);
    assert.match(page(copy), /<meta http-equiv="refresh" content="5">/);
    await writeReport(copy);
    assert.match(page(copy), /as a killed process does/);
    assert.doesNotMatch(page(copy), /refresh/);
  });

  it('refuses a folder without a run, and facts of another format', async () => {
    const folder = newFolder();
    await assert.rejects(writeReport(folder), /run\.json: is not there/);
    writeFileSync(join(folder, 'run.json'), '{"format":2}');
    await assert.rejects(writeReport(folder), /run\.json: has the format 2, this version reads 1/);
    writeFileSync(join(folder, 'run.json'), '{');
    await assert.rejects(writeReport(folder), /run\.json: is no JSON/);
  });

  it('is there after a run that ends by an error, which it names', async () => {
    const folder = newFolder();
    const onEvent = ({ type }: RunEvent) => {
      if (type === 'step') throw new Error('enough & <more>');
    };
    await assert.rejects(run({ outDir: folder, maxSteps: 4 }, { onEvent }), /enough/);
    assert.match(page(folder), /Ended by an error at step 1 of 4: Error: enough &amp; &lt;more&gt;/);
  });

  it('is there at a checkpoint, before the run ends', async () => {
    const folder = newFolder();
    const seen: string[] = [];
    const onEvent = ({ type }: RunEvent) => {
      if (type === 'step' && existsSync(join(folder, 'report.html'))) seen.push(page(folder));
    };
    await run({ outDir: folder, maxSteps: 4, checkpoint: { everySteps: 2 } }, { onEvent });
    assert.match(seen[0]!, /Under way: step 0 of 4/);
    assert.match(seen.at(-1)!, /Under way: step 2 of 4/);
    assert.match(page(folder), /Finished: step 4 of 4/);
  });

  it('that cannot be written gives one warning, and the run goes on', async () => {
    const folder = newFolder();
    const warnings: string[] = [];
    const onEvent = (event: RunEvent) => {
      if (event.type === 'warning') warnings.push(event.warning.code);
      if (event.type !== 'start') return;
      rmSync(join(folder, 'report.html'));
      mkdirSync(join(folder, 'report.html', 'x'), { recursive: true });
    };
    await run({ outDir: folder, maxSteps: 4, checkpoint: { everySteps: 2 } }, { onEvent });
    assert.deepEqual(warnings, ['report']);
  });
});
