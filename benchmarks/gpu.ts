// ./gpu bench [DEVICE] [--cases NAME,…] in the bundle: the native runner's groups, then every plan, each in a process of its own; tables,
// and gpu_results.json. On the CPU only the small plans run.
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { env, execArgv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Sizes } from './cases.ts';
import { errorLine, type Measurement } from './measure.ts';
import { caseArguments, cpuPlans, type Plan, plans } from './plans.ts';

/** What the native runner prints. Shares are of the speed of a large copy, or of the products alone; cold: with L2 overwritten before each run. */
interface NativeMeasurement {
  group: string;
  name: string;
  milliseconds: number;
  coldMilliseconds?: number;
  gigabytesPerSecond?: number;
  shareOfCopy?: number;
  hotShareOfCopy?: number;
  teraflops?: number;
  builtinRatio?: number;
  shareOfBound?: number;
}

const nativeGroups = ['kernels', 'products', 'native_mlp', 'native_head', 'native_attention'];
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cases: { type: 'string' },
    out: { type: 'string', default: join(env.OUT ?? '.', 'gpu_results.json') },
  },
});
const device = positionals[0] ?? 'cuda';
const onCpu = device === 'cpu';
const all: Record<string, Plan[]> = onCpu ? cpuPlans : plans;
const known = [...(onCpu ? [] : nativeGroups), ...Object.keys(all)];
const chosen = options.cases?.split(',') ?? known;
const unknown = chosen.find((name) => !known.includes(name));
if (unknown !== undefined) {
  console.error(`bench: there is no case ${unknown}; there are ${known.join(', ')}`);
  process.exit(2);
}

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const caseScript = here(`case${extname(import.meta.url)}`);
const runner = [here('../native_bench'), here('../build/cmake/minisequence_gpu_bench')].find(existsSync);
const report = {
  date: new Date().toISOString().slice(0, 10),
  gpu: nvidiaSmi(),
  native: [] as NativeMeasurement[],
  cases: [] as { case: string; sizes: Partial<Sizes>; results?: Measurement[]; problem?: string }[],
};
for (const name of chosen) {
  if (nativeGroups.includes(name)) runNative(name);
  else for (const plan of all[name]!) runPlan(plan);
  writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
}

/** The first GPU, its driver and its clocks now; null where there is no nvidia-smi. */
function nvidiaSmi(): string | null {
  const query = ['--query-gpu=name,driver_version,clocks.sm,clocks.mem', '--format=csv,noheader'];
  return spawnSync('nvidia-smi', query, { encoding: 'utf8' }).stdout?.trim() ?? null;
}

/** A program's output, and why it failed, which is printed too; null: it did not. */
function output(file: string, args: string[]): { stdout: string; problem: string | null } {
  const { stdout, stderr, status, signal, error } = spawnSync(file, args, { encoding: 'utf8' });
  if (status === 0) return { stdout, problem: null };
  const problem = error?.message ?? (stderr.trim() || `ended by ${signal ?? status}`);
  process.exitCode = 1;
  console.log(`  FAILED: ${errorLine(problem)}`);
  return { stdout: stdout ?? '', problem };
}

function runNative(name: string): void {
  console.log(`\n${name}`);
  if (!runner) {
    console.log('  SKIPPED: the native runner is not built; node scripts/build.mjs --gpu-bench');
    return;
  }
  const { stdout } = output(runner, [name.replace('native_', '')]);
  for (const line of stdout.trim().split('\n').filter(Boolean)) {
    const measurement = JSON.parse(line) as NativeMeasurement;
    report.native.push(measurement);
    console.log(describe(measurement));
  }
}

function describe(measured: NativeMeasurement): string {
  const { name, milliseconds, coldMilliseconds, gigabytesPerSecond, teraflops, ...shares } = measured;
  const percent = (share: number | undefined, of: string) =>
    share === undefined ? [] : [`${(100 * share).toFixed(1)} % ${of}`];
  return [
    `  ${name.padEnd(44)} ${milliseconds.toFixed(3).padStart(9)} ms`,
    ...(coldMilliseconds === undefined ? [] : [`cold ${coldMilliseconds.toFixed(3)} ms`]),
    ...(gigabytesPerSecond === undefined ? [] : [`${gigabytesPerSecond.toFixed(0)} GB/s`]),
    ...(teraflops === undefined ? [] : [`${teraflops.toFixed(0)} TFLOP/s`]),
    ...percent(shares.shareOfCopy, 'of the copy'),
    ...percent(shares.hotShareOfCopy, 'with L2 hot'),
    ...percent(shares.shareOfBound, 'of the products alone'),
    ...percent(shares.builtinRatio, 'of it by the built-in kernel'),
  ].join(', ');
}

function runPlan(plan: Plan): void {
  const { case: name, sizes } = plan;
  console.log(`\n${name} ${JSON.stringify(sizes)}`);
  const { stdout, problem } = output(execPath, [...execArgv, caseScript, ...caseArguments(plan, device)]);
  if (problem !== null) {
    report.cases.push({ case: name, sizes, problem });
    return;
  }
  const results = JSON.parse(stdout) as Measurement[];
  report.cases.push({ case: name, sizes, results });
  for (const { name, peakBytes, weightGradientBytes, milliseconds, ratio, teraflops, ...measured } of results) {
    const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
    const rest = weightGradientBytes ? ` (${mebibytes(peakBytes - weightGradientBytes)} and weight gradients)` : '';
    const { plannedBytes, usedBytes } = measured;
    const planned = plannedBytes === undefined ? '' : ` (planned ${mebibytes(plannedBytes)})`;
    const used = usedBytes === undefined ? '' : ` (driver ${mebibytes(usedBytes)})`;
    const speed = teraflops === undefined ? '' : ` ${teraflops.toFixed(0)} TFLOP/s`;
    console.log(
      `  ${name.padEnd(42)} ${milliseconds.toFixed(2).padStart(10)} ms ${ratio.toFixed(3)} ${mebibytes(peakBytes).padStart(11)}${rest}${planned}${used}${speed}`,
    );
  }
}
