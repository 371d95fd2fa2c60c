// The command line, as a process of its own.
import assert from 'node:assert/strict';
import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandLine, startCommand } from '../support/command.ts';
import { newFolder, tinyRun } from '../support/runs.ts';

interface Outcome {
  code: number | null;
  out: string;
  errors: string;
}

/** Runs `minisequence …`. */
async function cli(args: string[], onOutput?: (child: ChildProcess, out: string) => void): Promise<Outcome> {
  const child = startCommand(...args);
  const outcome: Outcome = { code: null, out: '', errors: '' };
  child.stderr.on('data', (text) => {
    outcome.errors += text;
  });
  child.stdout.on('data', (text) => {
    outcome.out += text;
    onOutput?.(child, outcome.out);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ ...outcome, code }));
  });
}

/** A configuration file; JSON is YAML. */
function configFile(options: Parameters<typeof tinyRun>[0] = {}): string {
  const path = join(newFolder(), 'run.yaml');
  writeFileSync(path, JSON.stringify(tinyRun(options)));
  return path;
}

describe('minisequence train', () => {
  it('prints plain lines where there is no terminal, and the memory comparison', async () => {
    const { code, out, errors } = await cli(['train', '--config', configFile({ maxSteps: 3 })]);
    assert.equal(code, 0, errors);
    assert.match(out, /^39,584 parameters in float32 on cpu; 1,000 tokens in 16 sequences of 64; 3 steps\n/);
    for (const step of [1, 2, 3]) assert.match(out, new RegExp(`^step ${step}/3 {2}loss .* left$`, 'm'));
    assert.match(out, /everything saved, nothing chunked .*\n.*same policy, nothing chunked .*\n.*mini-sequences/);
    assert.match(out, /Llama-3-8B at T = 65536/);
    assert.ok(!out.includes('\x1b'), 'no escape codes');
  });

  it('takes --set and --out, and speaks JSON', async () => {
    const outDir = newFolder();
    const set = ['--set', 'maxSteps=2', 'optimizer.learningRate=0.5'];
    const { code, out, errors } = await cli(['train', '--config', configFile(), ...set, '--out', outDir, '--json']);
    assert.equal(code, 0, errors);
    const [start, first, second, end] = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.equal(start.type, 'start');
    assert.deepEqual([first.type, first.step, first.learningRate], ['step', 1, 0.5]);
    assert.deepEqual([second.type, second.step], ['step', 2]);
    assert.deepEqual([end.type, end.finished, end.outDir], ['end', true, outDir]);
    assert.equal(end.memory.miniSequence, end.peakBytes);
    assert.ok(end.memory.plain > end.memory.miniSequence);
    assert.ok(end.llama3.plain > end.llama3.unchunked && end.llama3.unchunked > end.llama3.miniSequence);
    assert.ok(existsSync(join(outDir, 'model.safetensors')));
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`stops and saves on ${signal}, even if it comes twice at once`, async () => {
      const outDir = newFolder();
      const args = ['train', '--config', configFile({ maxSteps: 100_000 }), '--out', outDir];
      let isSent = false;
      const { code, out, errors } = await cli(args, (child, out) => {
        if (isSent || !/^step +3\//m.test(out)) return;
        isSent = child.kill(signal) && child.kill(signal); // as npm does
      });
      assert.equal(code, 0, errors);
      assert.match(out, new RegExp(`^stopped; saved ${outDir}$`, 'm'));
      assert.match(errors, new RegExp(`^${signal}: the run stops and saves`, 'm'));
      assert.ok(existsSync(join(outDir, 'model.safetensors')));
      const lines = readFileSync(join(outDir, 'metrics.jsonl'), 'utf8').trim().split('\n');
      const last = `step-${String(lines.length).padStart(6, '0')}`;
      assert.deepEqual(readdirSync(join(outDir, 'checkpoints')), [last]);
    });
  }

  for (const [what, redirection] of [
    ['is closed', '| head -1'],
    ['has no room', '> /dev/full'],
  ] as const) {
    it(`goes on where standard output ${what}`, () => {
      const outDir = newFolder();
      const args = ['train', '--config', configFile({ maxSteps: 60 }), '--out', outDir];
      const script = `set -o pipefail; "$0" "$@" ${redirection}`;
      const { status, stderr } = spawnSync('bash', ['-c', script, process.execPath, ...commandLine(...args)], {
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
      assert.match(stderr, /^Warning: standard output cannot be written, and the run goes on: /m);
      assert.equal(readFileSync(join(outDir, 'metrics.jsonl'), 'utf8').trim().split('\n').length, 60);
      assert.ok(existsSync(join(outDir, 'model.safetensors')));
    });
  }

  const failures: [string, string[], RegExp][] = [
    ['an unknown option', ['--set', 'sequenceLenght=3'], /did you mean sequenceLength\?/],
    ['a file that is not there', ['--set', 'data.files=[nowhere.txt]'], /nowhere\.txt: cannot be read/],
    ['a device that is not there', ['--set', 'device=cuda:99'], /cuda/i],
  ];
  for (const [what, args, message] of failures) {
    it(`exits with 1 and one line for ${what}`, async () => {
      const { code, out, errors } = await cli(['train', '--config', configFile(), ...args]);
      assert.equal(code, 1);
      assert.equal(out, '');
      assert.match(errors, message);
      assert.doesNotMatch(errors, /^ {4}at /m, 'no stack');
    });
  }
});

describe('minisequence report', () => {
  it('writes the report again, and --follow ends at once if no run is active', async () => {
    const outDir = newFolder();
    await cli(['train', '--config', configFile({ maxSteps: 2 }), '--out', outDir]);
    const path = join(outDir, 'report.html');
    const first = readFileSync(path, 'utf8');
    rmSync(path);
    const { code, out, errors } = await cli(['report', outDir, '--follow']);
    assert.equal(code, 0, errors);
    assert.equal(out, `${path}\nFinished: step 2 of 2\n`);
    assert.equal(readFileSync(path, 'utf8'), first);
  });
  it('exits with 1 for a folder without a run', async () => {
    const { code, errors } = await cli(['report', newFolder()]);
    assert.equal(code, 1);
    assert.match(errors, /run\.json: is not there/);
  });
});

describe('minisequence doctor', () => {
  it('prints versions, the addon, libraries and devices', async () => {
    const { code, out } = await cli(['doctor']);
    assert.equal(code, 0);
    for (const line of [/^minisequence +\d+\.\d+\.\d+, Node v/m, /^addon .*minisequence\.node$/m, /^oneDNN .*libdnnl/m])
      assert.match(out, line);
    assert.match(out, /^device +cpu, memoryLimit/m);
  });
  it('gives a remedy for each thing that is missing', async () => {
    const report = JSON.parse((await cli(['doctor', '--json'])).out);
    assert.ok(existsSync(report.addon.path));
    assert.ok(report.cpuMemoryLimit > 0 && report.cpu.threads > 0);
    for (const { what, remedy } of report.missing) assert.ok(what && remedy);
    assert.equal(
      report.missing.length > 0,
      !report.cuda.built || report.cuda.problem !== '' || report.cuda.cublasLtPath === '',
    );
  });
});
