// npm run bench:peers, or ./gpu peers in the bundle: our cases and the same work by PyTorch and what is built on it, each in a process of
// its own, in turn for several rounds, so that a drift of the clocks hits all alike. Needs a GPU and a Python with PyTorch.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { delimiter, dirname, extname, join } from 'node:path';
import { env, execArgv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Sizes } from './cases.ts';
import { type Measurement, median } from './measure.ts';

const { values: options } = parseArgs({
  options: {
    cases: { type: 'string', default: 'mlp,head,attention,step' },
    rounds: { type: 'string', default: '3' },
    repetitions: { type: 'string', default: '30' },
    lengths: { type: 'string', default: '8192,32768' }, // of a whole step
    layers: { type: 'string', default: '32' },
    'memory-limit': { type: 'string' }, // GiB, of every process
    out: { type: 'string', default: join(env.OUT ?? '.', 'peers_results.json') },
  },
});

/** What one process says of one part of its work: forward, backward, or both. */
interface Timing {
  program: string;
  part: string;
  milliseconds: number;
  /** With L2 written over before; ours are timed with a warm one only. */
  coldMilliseconds?: number | null;
  /** The products alone, in the same process; ours take the median of the round's. */
  boundMilliseconds?: number;
  operations?: number;
  teraflops?: number;
  peakBytes: number;
  moments?: string;
}

interface Report {
  peer: string;
  skipped?: string;
  results?: Omit<Timing, 'program'>[];
  versions: Record<string, string>;
  device: string;
  clocks: Record<string, number> | null;
}

/** One line of the table: medians over the rounds. */
interface Row {
  program: string;
  part: string;
  milliseconds: number;
  coldMilliseconds: number | null;
  ratioToBound: number;
  teraflops: number | null;
  peakBytes: number;
}

interface Plan {
  case: string;
  /** Arguments of the peers' program. */
  sizes: Record<string, number>;
  peers: string[];
  repetitions: number;
  own: { case: string; sizes: Partial<Sizes>; rounds: number }[];
}

const repetitions = Number(options.repetitions);
const layers = Number(options.layers);
const limit = options['memory-limit'];
const mlp = { N: 16384, C: 4096, F: 14336 };
const head = { N: 8192, C: 4096, V: 128256 };
const plans: Plan[] = [
  {
    case: 'mlp',
    sizes: mlp,
    peers: ['eager', 'compile', 'checkpoint', 'liger', 'liger_tiled', 'deepspeed_tiled'],
    repetitions,
    own: [8192, 4096].map((chunkSize) => ({ case: 'mlp', sizes: { ...mlp, chunkSize }, rounds: 10 })),
  },
  {
    case: 'head',
    sizes: head,
    peers: ['eager', 'eager_bf16', 'compile', 'torch_chunked', 'liger', 'liger_f32', 'cce', 'cce_exact'],
    repetitions,
    own: [{ case: 'head', sizes: { ...head, chunkSize: 4096 }, rounds: 15 }],
  },
  {
    case: 'attention',
    sizes: { B: 1, T: 16384, H: 32, G: 8, D: 128 },
    peers: ['flash', 'cudnn'],
    repetitions,
    own: [{ case: 'attention', sizes: { N: 16384, C: 4096 }, rounds: 10 }],
  },
  ...options.lengths.split(',').map((length) => ({
    case: 'step',
    sizes: { T: Number(length), layers },
    peers: ['eager', 'eager_cudnn', 'compile_cudnn', 'liger', 'liger_cudnn'],
    repetitions: Math.min(3, repetitions),
    own: [{ case: 'llama3', sizes: { N: Number(length), chunkSize: 8192, layers }, rounds: 3 }],
  })),
];

/** A peer that cannot run here, not importable or out of memory. Anything else that goes wrong fails the command. */
class Skipped extends Error {}

// The bundle's own C++ library, which `./gpu` puts first for Node, may be older than the one that Python's modules were built with.
const bundled = join(dirname(execPath), 'lib');
const libraries = (env.LD_LIBRARY_PATH ?? '').split(delimiter).filter((folder) => folder !== bundled);
const pythonEnv = { ...env, LD_LIBRARY_PATH: libraries.join(delimiter) };
const python = env.VIRTUAL_ENV ? join(env.VIRTUAL_ENV, 'bin', 'python') : 'python3';
if (spawnSync(python, ['-c', 'import torch'], { env: pythonEnv }).status !== 0) {
  console.error(`peers: ${python} cannot import torch; activate a virtual environment that has PyTorch with CUDA`);
  process.exit(1);
}
const report = { date: new Date().toISOString().slice(0, 10), cases: [] as unknown[] };
for (const plan of plans) if (options.cases.split(',').includes(plan.case)) compare(plan);

/** Runs a plan's programs in turn, prints its table, adds it to the file. */
function compare(plan: Plan): void {
  const rounds: Timing[][] = [];
  const problems: Record<string, string> = {}; // a program that has one is not tried again
  const machine: Partial<Report> = {};
  const clocks: Report['clocks'][] = [];
  for (let round = 0; round < Number(options.rounds); round++) {
    const timings: Timing[] = [];
    const attempt = (program: string, run: () => Timing[]) => {
      if (program in problems) return;
      try {
        timings.push(...run());
      } catch (error) {
        problems[program] = (error as Error).message;
        if (!(error instanceof Skipped)) process.exitCode = 1;
      }
    };
    for (const peer of plan.peers) {
      attempt(peer, () => {
        const { skipped, results, versions, device, clocks: busiest } = runPeer(plan, peer);
        Object.assign(machine, { versions, device });
        if (!results) throw new Skipped(skipped);
        clocks.push(busiest);
        return results.map((result) => ({ ...result, program: peer }));
      });
    }
    for (const own of plan.own) attempt(`minisequence ${JSON.stringify(own.sizes)}`, () => runOwn(own));
    rounds.push(timings);
  }
  const rows = summarize(rounds);
  report.cases.push({ case: plan.case, sizes: plan.sizes, ...machine, rows, problems, clocks, rounds });
  writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`);
  print(plan, rows, problems, clocks);
}

function runPeer({ case: name, sizes, repetitions }: Plan, peer: string): Report {
  const script = fileURLToPath(new URL(`peers/${name}.py`, import.meta.url));
  const args = [script, '--peer', peer, '--repetitions', String(repetitions)];
  for (const [size, value] of Object.entries(sizes)) args.push(`--${size}`, String(value));
  if (limit) args.push('--memory-limit', limit);
  return lastLine(python, args, pythonEnv);
}

function runOwn({ case: name, sizes, rounds }: Plan['own'][number]): Timing[] {
  const script = fileURLToPath(new URL(`case${extname(import.meta.url)}`, import.meta.url));
  const all = JSON.stringify({ V: 1, F: 1, chunkSize: 1, ...sizes });
  const args = [...execArgv, script, name, 'bfloat16', all, String(rounds), 'cuda'];
  if (limit) args.push(String(Math.floor(Number(limit) * 2 ** 30)));
  return lastLine<Measurement[]>(execPath, args).map(({ name: variant, ...measurement }) => {
    const [, program, part = 'both'] = /^(.*?)(?:, (forward|backward))?$/.exec(variant)!;
    return { ...measurement, program: `minisequence, ${program}`, part };
  });
}

/** What a program prints in its last line. */
function lastLine<T>(file: string, args: string[], environment = env): T {
  const { stdout, stderr, status, error } = spawnSync(file, args, { encoding: 'utf8', env: environment });
  if (status !== 0) throw new Error(error?.message ?? stderr.trim());
  return JSON.parse(stdout.trim().split('\n').at(-1)!);
}

/** Medians over the rounds, a row for each program and part; ratios are to the bound of the same round. */
function summarize(rounds: readonly Timing[][]): Row[] {
  const bounds = (timings: readonly Timing[], part: string) =>
    timings.flatMap((timing) => (timing.part === part && timing.boundMilliseconds ? [timing.boundMilliseconds] : []));
  const rows = new Map<string, Timing[]>();
  for (const timings of rounds) {
    for (const timing of timings) {
      const { program, part, boundMilliseconds = median(bounds(timings, part)) } = timing;
      const key = JSON.stringify([program, part]);
      rows.set(key, [...(rows.get(key) ?? []), { ...timing, boundMilliseconds }]);
    }
  }
  const all = rounds.flat();
  return [...rows.values()].map((timings) => {
    const { program, part, moments } = timings[0]!;
    const milliseconds = median(timings.map((timing) => timing.milliseconds));
    const operations = all.find((timing) => timing.part === part && timing.operations)?.operations;
    const cold = timings.flatMap(({ coldMilliseconds }) => (coldMilliseconds ? [coldMilliseconds] : []));
    return {
      program: moments ? `${program}, moments in ${moments}` : program,
      part,
      milliseconds,
      coldMilliseconds: cold.length > 0 ? median(cold) : null,
      ratioToBound: median(timings.map((timing) => timing.milliseconds / timing.boundMilliseconds!)),
      teraflops: operations ? operations / milliseconds / 1e9 : null,
      peakBytes: Math.max(...timings.map((timing) => timing.peakBytes)),
    };
  });
}

function print(
  plan: Plan,
  rows: readonly Row[],
  problems: Record<string, string>,
  clocks: readonly Report['clocks'][],
) {
  const columns = (cells: string[]) => {
    const [program, ...numbers] = cells;
    console.log(`  ${program!.padEnd(58)}${numbers.map((cell) => cell.padStart(11)).join('')}`);
  };
  const digits = (value: number | null, count: number) =>
    value === null || !Number.isFinite(value) ? '-' : value.toFixed(count);
  console.log(`\n${plan.case} ${JSON.stringify(plan.sizes)}`);
  columns(['program', 'ms', 'ms, cold', 'x bound', 'TFLOP/s', 'MiB']);
  for (const row of rows) {
    columns([
      row.part === 'both' ? row.program : `${row.program}, ${row.part}`,
      digits(row.milliseconds, 2),
      digits(row.coldMilliseconds, 2),
      digits(row.ratioToBound, 3),
      digits(row.teraflops, 0),
      digits(row.peakBytes / 2 ** 20, 0),
    ]);
  }
  for (const [program, problem] of Object.entries(problems)) {
    const lines = problem.split('\n');
    console.log(`  ${program}: ${lines.findLast((line) => /^\S*(Error|Exception)\b/.test(line)) ?? lines.at(-1)}`);
  }
  const busy = clocks.flatMap((sample) => (sample ? [sample.smMHz!] : []));
  if (busy.length > 0) console.log(`  SM clock under load: ${Math.min(...busy)} to ${Math.max(...busy)} MHz`);
}
