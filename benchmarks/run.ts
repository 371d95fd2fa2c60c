// npm run bench [-- --json] [--out FILE]: every case in its own process; memory first, then time.
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Sizes } from './cases.ts';
import type { Measurement } from './measure.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    out: { type: 'string' },
    rounds: { type: 'string', default: '7' },
  },
});

const sizes = { C: 1024, F: 2816, V: 32000, chunkSize: 1024 };
const plan: { name: string; dtype: string; sizes: Sizes; rounds: number }[] = [];
for (const N of [4096, 256]) {
  for (const name of ['mlp', 'head']) {
    for (const dtype of ['float32', 'bfloat16']) {
      plan.push({ name, dtype, sizes: { ...sizes, N }, rounds: Number(values.rounds) * (N === 256 ? 5 : 1) });
    }
  }
}
plan.push({
  name: 'step',
  dtype: 'float32',
  sizes: { ...sizes, N: 2048, C: 512, F: 1408, V: 16000, chunkSize: 512 },
  rounds: 3,
});

const report = {
  date: new Date().toISOString().slice(0, 10),
  commit: execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim(),
  machine: { cpu: cpus()[0]?.model, threads: availableParallelism() },
  node: process.version,
  cases: [] as { case: string; dtype: string; sizes: Sizes; results: Measurement[] }[],
};
for (const { name, dtype, sizes, rounds } of plan) {
  const script = fileURLToPath(new URL('case.ts', import.meta.url));
  const args = ['--import', 'tsx', script, name, dtype, JSON.stringify(sizes), String(rounds), 'cpu'];
  const { stdout, status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name}: ${stderr}`);
  const results = JSON.parse(stdout) as Measurement[];
  report.cases.push({ case: name, dtype, sizes, results });
  if (!values.json) print(name, dtype, sizes, results);
}
if (values.json) console.log(JSON.stringify(report, null, 2));
if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);

function print(name: string, dtype: string, { N, C, F, V }: Sizes, results: Measurement[]): void {
  console.log(`\n${name}, ${dtype}, N ${N}, C ${C}, ${name === 'head' ? `V ${V}` : `F ${F}`}`);
  for (const { name, peakBytes, milliseconds, ratio } of results) {
    console.log(
      `  ${name.padEnd(40)} ${(peakBytes / 2 ** 20).toFixed(0).padStart(6)} MiB  ${milliseconds.toFixed(1).padStart(9)} ms  ${ratio.toFixed(3)}`,
    );
  }
}
