// npm run bench:peers, or ./gpu peers in the bundle: our cases and the same work by PyTorch and what is built on it, each in a process of
// its own, in turn for several rounds, so that a drift of the clocks affects all equally. Needs a GPU and a Python with PyTorch.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { delimiter, dirname, extname, join } from 'node:path';
import { env, execArgv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { errorLine, type Measurement, median } from './measure.ts';
import { caseArguments, type Plan as OwnPlan, plans as ownPlans } from './plans.ts';

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

/** What one process reports about one part of its work: forward, backward, or both. */
interface Timing {
  program: string;
  part: string;
  milliseconds: number;
  /** With L2 overwritten before each run; ours are timed with a warm L2 only. */
  coldMilliseconds?: number | null;
  /** The products alone, in the same process; for ours, the median of the others in the same round. */
  boundMilliseconds?: number;
  operations?: number;
  teraflops?: number;
  peakBytes: number;
  weightGradientBytes?: number;
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
  weightGradientBytes: number | null;
}

interface Plan {
  name: string;
  /** The peers' program. */
  case: string;
  /** Arguments of the peers' program. */
  sizes: Record<string, number>;
  peers: string[];
  repetitions: number;
  own: OwnPlan[];
}

const repetitions = Number(options.repetitions);
const layers = Number(options.layers);
const limit = options['memory-limit'];
const head = { C: 4096, V: 128256 };
const gemma = { C: 2304, V: 256000 }; // Gemma-2-2B's
const headPeers = [
  'eager',
  'eager_bf16',
  'compile',
  'torch_chunked',
  'liger',
  'liger_f32',
  'liger_cute',
  'quack',
  'cce',
  'cce_exact',
];
const softcapPeers = ['eager_softcap', 'compile_softcap', 'liger_softcap', 'cce_softcap'];
const perTokenPeers = ['eager_per_token', 'compile_per_token', 'liger_per_token'];

/** Our plans of the same name, beside peers. */
const beside = (name: keyof typeof ownPlans, program: string, sizes: Plan['sizes'], peers: string[]): Plan => ({
  name,
  case: program,
  sizes,
  peers,
  repetitions,
  own: ownPlans[name],
});
const plans: Plan[] = [
  beside('mlp', 'mlp', { N: 16384, C: 4096, F: 14336 }, [
    'eager',
    'compile',
    'checkpoint',
    'liger',
    'liger_tiled',
    'deepspeed_tiled',
  ]),
  beside('head', 'head', { ...head, N: 8192 }, headPeers),
  beside('head_16k', 'head', { ...head, N: 16384 }, headPeers),
  beside('head_1k', 'head', { ...head, N: 1024 }, headPeers),
  beside('head_per_token', 'head', { N: 4096, C: 4096, V: 131072 }, perTokenPeers),
  beside('head_per_token_32k', 'head', { N: 32000, C: 4096, V: 131072 }, perTokenPeers),
  beside('head_gemma', 'head', { ...gemma, N: 8192 }, headPeers),
  beside('head_gemma_softcap', 'head', { ...gemma, N: 8192 }, softcapPeers),
  beside('attention', 'attention', { B: 1, T: 16384, H: 32, G: 8, D: 128 }, ['flash', 'cudnn']),
  ...options.lengths.split(',').map(
    (length): Plan => ({
      name: 'step',
      case: 'step',
      sizes: { T: Number(length), layers },
      peers: ['eager', 'eager_cudnn', 'compile_cudnn', 'liger', 'liger_cudnn'],
      repetitions: Math.min(3, repetitions),
      own: [{ case: 'llama3', sizes: { N: Number(length), chunkSize: 8192, layers }, rounds: 3 }],
    }),
  ),
];

const chosen = options.cases.split(',');
const unknown = chosen.find((name) => !plans.some((plan) => plan.name === name));
if (unknown !== undefined) {
  console.error(
    `peers: there is no case ${unknown}; there are ${[...new Set(plans.map(({ name }) => name))].join(', ')}`,
  );
  process.exit(2);
}

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
for (const plan of plans) if (chosen.includes(plan.name)) compare(plan);

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
  report.cases.push({ case: plan.name, sizes: plan.sizes, ...machine, rows, problems, clocks, rounds });
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

function runOwn(plan: OwnPlan): Timing[] {
  const script = fileURLToPath(new URL(`case${extname(import.meta.url)}`, import.meta.url));
  const args = [...execArgv, script, ...caseArguments(plan, 'cuda')];
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
      weightGradientBytes: timings[0]!.weightGradientBytes ?? null,
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
  console.log(`\n${plan.name} ${JSON.stringify(plan.sizes)}`);
  columns(['program', 'ms', 'ms, cold', 'x bound', 'TFLOP/s', 'MiB', 'but dW']);
  for (const row of rows) {
    columns([
      row.part === 'both' ? row.program : `${row.program}, ${row.part}`,
      digits(row.milliseconds, 2),
      digits(row.coldMilliseconds, 2),
      digits(row.ratioToBound, 3),
      digits(row.teraflops, 0),
      digits(row.peakBytes / 2 ** 20, 0),
      digits(row.weightGradientBytes === null ? null : (row.peakBytes - row.weightGradientBytes) / 2 ** 20, 0),
    ]);
  }
  for (const [program, problem] of Object.entries(problems)) {
    console.log(`  ${program}: ${errorLine(problem)}`);
  }
  const busy = clocks.flatMap((sample) => (sample ? [sample.smMHz!] : []));
  if (busy.length > 0) console.log(`  SM clock under load: ${Math.min(...busy)} to ${Math.max(...busy)} MHz`);
}
