// A run is killed before each call that changes a folder, and continued: nothing is lost, and nothing is left.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder, textFile, tinyRun } from '../support/runs.ts';

const preloaded = join(newFolder(), 'folder_calls.so');
const data = { files: [textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(40))] };
const CHECKPOINT = ['config.json', 'model.safetensors', 'optimizer.safetensors', 'state.json'];

interface Faults {
  KILL?: string;
  EIO?: string;
  COUNT?: string;
}

function train(
  outDir: string,
  faults: Faults | null,
): { status: number | null; signal: string | null; output: string } {
  const path = join(newFolder(), 'run.yaml');
  const options = { data, maxSteps: 6, checkpoint: { everySteps: 2, keepLast: 1 }, threads: 1, outDir };
  writeFileSync(path, JSON.stringify(tinyRun(options)));
  const env = { ...process.env, UV_USE_IO_URING: '0' };
  if (faults) {
    Object.assign(env, { LD_PRELOAD: preloaded, FAULT_UNDER: outDir });
    for (const [name, value] of Object.entries(faults)) Object.assign(env, { [`FAULT_${name}`]: value });
  }
  const args = ['dist/cli/main.js', 'train', '--config', path, '--resume', '--json'];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
  return { status, signal, output: stdout + stderr };
}

function metricsOf(outDir: string): object[] {
  const lines = readFileSync(join(outDir, 'metrics.jsonl'), 'utf8').trim().split('\n');
  return lines.map((line) => ({ ...JSON.parse(line), seconds: 0, tokensPerSecond: 0 }));
}
const modelOf = (outDir: string) => readFileSync(join(outDir, 'model.safetensors'));
const treeOf = (outDir: string) => readdirSync(outDir, { recursive: true }).map(String).sort();

describe('what kills and failing calls leave', () => {
  const whole = newFolder();
  const counts = new Map<string, number>();

  before(() => {
    execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', preloaded, 'test/slow/folder_calls.c', '-ldl']);
    const told = join(newFolder(), 'counts');
    assert.equal(train(whole, { COUNT: told }).status, 0);
    for (const line of readFileSync(told, 'utf8').trim().split('\n')) {
      const [name, count] = line.split(' ');
      counts.set(name!, Number(count));
    }
  });

  for (const call of ['rename', 'unlink', 'rmdir', 'mkdir']) {
    it(`a kill before any ${call} leaves no half checkpoint, and the run ends as if undisturbed`, () => {
      const count = counts.get(call)!;
      assert.ok(count > 0, `no ${call}`);
      for (let number = 1; number <= count; number++) {
        const outDir = newFolder();
        const { signal } = train(outDir, { KILL: `${call}:${number}` });
        if (signal !== 'SIGKILL') continue; // the calls of two runs are not quite as many
        const checkpoints = join(outDir, 'checkpoints');
        for (const name of existsSync(checkpoints) ? readdirSync(checkpoints) : []) {
          if (name.startsWith('step-')) assert.deepEqual(readdirSync(join(checkpoints, name)).sort(), CHECKPOINT);
        }
        const { status, output } = train(outDir, null);
        assert.equal(status, 0, output);
        assert.deepEqual(metricsOf(outDir), metricsOf(whole), `${call} ${number}`);
        assert.ok(modelOf(outDir).equals(modelOf(whole)), `${call} ${number}`);
        assert.deepEqual(treeOf(outDir), treeOf(whole), `${call} ${number}`);
      }
    });
  }

  it('an old checkpoint that cannot be removed is a warning', () => {
    const outDir = newFolder();
    const { status, output } = train(outDir, { EIO: 'step-000002' });
    assert.equal(status, 0, output);
    const told = output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      told
        .filter(({ type }) => type === 'warning')
        .map(({ code, message }) => [code, /step-000002.*cannot be removed: EIO/.test(message)]),
      [['leftover', true]],
    );
    assert.ok(modelOf(outDir).equals(modelOf(whole)));
  });
});
