// metrics.jsonl and the line on the terminal.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { StepMetrics } from '../../lib/index.ts';
import { formatMetrics, Progress } from '../../lib/train/metrics.ts';
import { StepFile } from '../../lib/train/step_file.ts';
import { newFolder } from '../support/runs.ts';

const metrics: StepMetrics = {
  step: 5,
  loss: 2.56789,
  gradNorm: 0.5,
  learningRate: 3e-4,
  tokens: 8192,
  tokensPerSecond: 3400.4,
  peakBytes: 3 * 2 ** 20,
  seconds: 90,
};

/** A stream that remembers what was written. */
class Recorder {
  readonly isTTY: boolean;
  readonly columns: number;
  text = '';

  constructor(isTTY: boolean, columns = 80) {
    this.isTTY = isTTY;
    this.columns = columns;
  }
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

describe('StepFile', () => {
  it('appends an object a line, readable after each', async () => {
    const path = join(newFolder(), 'metrics.jsonl');
    const file = await StepFile.open<StepMetrics>(path, 0);
    await file.append(metrics);
    assert.equal(await readFile(path, 'utf8'), `${JSON.stringify(metrics)}\n`);
    await file.append({ ...metrics, step: 6, loss: Number.NaN });
    await file.close();
    const [, second] = (await readFile(path, 'utf8')).split('\n');
    assert.deepEqual(JSON.parse(second!), { ...metrics, step: 6, loss: null });
  });
  it('begins anew', async () => {
    const path = join(newFolder(), 'metrics.jsonl');
    for (let i = 0; i < 2; i++) {
      const file = await StepFile.open<StepMetrics>(path, 0);
      await file.append(metrics);
      await file.close();
    }
    assert.equal((await readFile(path, 'utf8')).trimEnd().split('\n').length, 1);
  });
});

describe('formatMetrics', () => {
  it('shows step, loss, rate, norm, speed, memory and the time left', () => {
    assert.equal(
      formatMetrics(metrics, 40),
      'step  5/40  loss 2.5679  lr 3.00e-4  norm 0.50  3400 tokens/s  peak 3.00 MiB  10:30 left',
    );
    assert.match(formatMetrics({ ...metrics, step: 1 }, 100), /2:28:30 left$/);
    assert.match(formatMetrics({ ...metrics, step: 40 }, 40), / 0:00 left$/);
  });
});

describe('Progress', () => {
  it('rewrites one line on a terminal, cut to its width', () => {
    const terminal = new Recorder(true, 10);
    const progress = new Progress(terminal);
    progress.show('0123456789abc');
    progress.show('next');
    progress.note('stays');
    progress.end();
    assert.equal(terminal.text, '\r\x1b[K012345678\r\x1b[Knext\nstays\n');
  });
  it('shows its line on a terminal that does not tell its width', () => {
    const terminal = new Recorder(true, 0);
    new Progress(terminal).show('line');
    assert.equal(terminal.text, '\r\x1b[Kline');
  });
  it('writes plain lines elsewhere', () => {
    const pipe = new Recorder(false);
    const progress = new Progress(pipe);
    progress.show('first');
    progress.note('note');
    progress.show('second');
    progress.end();
    assert.equal(pipe.text, 'first\nnote\nsecond\n');
  });
});
