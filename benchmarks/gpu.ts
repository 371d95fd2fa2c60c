// Every case at the sizes that GPUs are for (small ones on the CPU), one process each: a table, and gpu_results.json in the current folder.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { extname } from 'node:path';
import { argv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import type { Sizes } from './cases.ts';
import type { Measurement } from './measure.ts';

const device = argv[2] ?? 'cuda';
const plans: Record<string, [name: string, sizes: Partial<Sizes>, rounds: number][]> = {
  cuda: [
    ['head', { N: 8192, C: 4096, V: 128256, chunkSize: 4096 }, 15],
    ['head', { N: 16384, C: 4096, V: 128256, chunkSize: 8192 }, 9],
    ['mlp', { N: 16384, C: 4096, F: 14336, chunkSize: 8192 }, 10],
    ['mlp', { N: 16384, C: 4096, F: 14336, chunkSize: 4096 }, 10],
    ['mlp', { N: 1024, C: 4096, F: 14336, chunkSize: 1024 }, 20],
    ['step', { N: 8192, C: 2048, F: 8192, V: 128256, chunkSize: 4096 }, 3],
    ['attention', { N: 16384, C: 4096 }, 7],
    ['llama3', { N: 8192, chunkSize: 8192 }, 3],
    ['llama3', { N: 32768, chunkSize: 8192 }, 2],
  ],
  cpu: [
    ['head', { N: 256, C: 128, V: 2000, chunkSize: 64 }, 3],
    ['mlp', { N: 256, C: 128, F: 352, chunkSize: 64 }, 3],
    ['attention', { N: 256, C: 256 }, 3],
  ],
};

const script = fileURLToPath(new URL(`case${extname(import.meta.url)}`, import.meta.url));
const cases: { case: string; sizes: Partial<Sizes>; results?: Measurement[]; problem?: string }[] = [];
let failed = false;
for (const [name, sizes, rounds] of plans[device === 'cpu' ? 'cpu' : 'cuda']!) {
  const args = [
    script,
    name,
    'bfloat16',
    JSON.stringify({ V: 1, F: 1, chunkSize: 1, ...sizes }),
    String(rounds),
    device,
  ];
  const { stdout, stderr, status } = spawnSync(execPath, args, { encoding: 'utf8' });
  console.log(`\n${name} ${JSON.stringify(sizes)}`);
  if (status !== 0) {
    failed = true;
    cases.push({ case: name, sizes, problem: stderr.trim() });
    console.log(`  FAILED: ${stderr.trim().split('\n').at(-1)}`);
    continue;
  }
  const results = JSON.parse(stdout) as Measurement[];
  cases.push({ case: name, sizes, results });
  for (const { name, peakBytes, milliseconds, ratio, teraflops } of results) {
    const speed = teraflops === undefined ? '' : `${teraflops.toFixed(0)} TFLOP/s`;
    const memory = `${(peakBytes / 2 ** 20).toFixed(0)} MiB`;
    console.log(
      `  ${name.padEnd(42)} ${memory.padStart(12)} ${milliseconds.toFixed(2).padStart(12)} ms ${ratio.toFixed(3)} ${speed}`,
    );
  }
}
const { stdout } = spawnSync(
  'nvidia-smi',
  ['--query-gpu=name,driver_version,clocks.sm,clocks.mem', '--format=csv,noheader'],
  { encoding: 'utf8' },
);
writeFileSync(
  'gpu_results.json',
  `${JSON.stringify({ date: new Date().toISOString().slice(0, 10), gpu: stdout?.trim() ?? null, cases }, null, 2)}\n`,
);
process.exitCode = failed ? 1 : 0;
