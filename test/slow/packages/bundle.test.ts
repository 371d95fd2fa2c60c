// The bundle for GPU machines: small enough, and whole: it runs where there is no Node.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from '../../support/runs.ts';

const MAX_BYTES = 60e6;

describe('bundle', () => {
  const folder = newFolder();
  const bundled = join(folder, 'minisequence-gpu');
  /** Without Node, and without anything that this machine's environment says. */
  const gpu = (...args: string[]) =>
    spawnSync('./gpu', args, { cwd: bundled, encoding: 'utf8', env: { PATH: '/usr/sbin:/sbin:/bin' } });

  before(function () {
    this.timeout(600_000);
    execFileSync(process.execPath, ['scripts/bundle.mjs'], { stdio: 'ignore' });
    execFileSync('tar', ['-xf', 'build/minisequence-gpu.tar.xz', '-C', folder]);
  });

  it(`has at most ${MAX_BYTES / 1e6} MB`, () => {
    const { size } = statSync('build/minisequence-gpu.tar.xz');
    assert.ok(size <= MAX_BYTES, `${size} bytes`);
  });

  it('passes the tests without Node, on the CPU', () => {
    const { status, stdout, stderr } = gpu('test', 'cpu');
    assert.equal(status, 0, stdout.slice(stdout.indexOf('failing')) + stderr);
    assert.ok(Number(/(\d+) passing/.exec(stdout)?.[1]) > 400, stdout);
    const skipped = stdout.split('\n').filter((line) => /^\s+- /.test(line));
    // The bundle is for one machine's GPUs: it has no library of CPU ranks.
    assert.deepEqual(
      skipped.filter((line) => !/\(on (CUDA|the CPU with Gloo) alone\)$/.test(line)),
      [],
    );
  }).timeout(600_000);

  it('times, and leaves its results', () => {
    const { status, stdout, stderr } = gpu('bench', 'cpu');
    assert.equal(status, 0, stdout + stderr);
    const { cases } = JSON.parse(readFileSync(join(bundled, 'gpu_results.json'), 'utf8'));
    assert.deepEqual(
      cases.map(({ case: name }: { case: string }) => name),
      ['head', 'head', 'head', 'mlp', 'attention'],
    );
  }).timeout(120_000);

  it('has the native benchmarks, which run or tell why not', () => {
    const { stdout } = gpu('bench', '--cases', 'kernels');
    assert.match(stdout, / ms, cold | FAILED: cuda:0: /);
  }).timeout(120_000);

  it('has the command line', () => {
    const { status, stdout } = gpu('doctor', '--json');
    assert.equal(status, 0);
    assert.match(JSON.parse(stdout).addon.path, /minisequence-gpu\/prebuilds\/linux-x64\/minisequence\.node$/);
  });

  it('trains on text through a tokenizer.json', () => {
    const text = join(folder, 'text.txt');
    writeFileSync(text, 'Long texts are encoded on a thread of their own. '.repeat(1000));
    const config = ['--config', join(bundled, 'examples', 'quickstart.yaml')];
    const tokenizer = join(bundled, 'examples', 'quickstart', 'tokenizer.json');
    const sets = [
      `data.files=[${text}]`,
      `tokenizer=${tokenizer}`,
      'sequenceLength=128',
      'maxSteps=1',
      'schedule.warmupSteps=0',
    ];
    const { status, stdout, stderr } = gpu(
      'minisequence',
      'train',
      ...config,
      '--out',
      join(folder, 'run'),
      '--set',
      ...sets,
    );
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, /step 1\/1/);
  });
});
