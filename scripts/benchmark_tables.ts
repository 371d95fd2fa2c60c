// Tables of benchmarks/results/, for docs/benchmarks.md and the README.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '..', 'benchmarks', 'results');

/** Files that docs/benchmarks.md shows, the newest first. */
export const SHOWN = [
  'h200x2_2026-11-28_ranks',
  'h200_2026-11-28',
  'h100_2026-11-28_in_backward',
  'h100_2026-11-28_offload',
  'h100_2026-11-28',
  'h200_2026-11-26',
  'h200_2026-11-25',
  'cpu_2026-11-25',
];
/** Files of earlier versions, which are linked and not shown. */
export const EARLIER = [
  'h100_2026-11-27',
  'h100_2026-11-23',
  'h200_2026-11-23_tuned',
  'h200_2026-11-23',
  'h200_2026-11-23_bundle',
];
/** Files whose comparison with HuggingFace the README shows; a case that one lacks is taken from the next. */
const PEERS = ['h200_2026-11-26', 'h200_2026-11-25'];

interface Result {
  name: string;
  milliseconds: number;
  ratio: number;
  peakBytes: number;
  plannedBytes?: number;
  weightGradientBytes?: number;
  teraflops?: number;
}

interface Case {
  case: string;
  dtype?: string;
  sizes: Record<string, unknown>;
  results: Result[];
}

interface PeerRow {
  program: string;
  part: string;
  milliseconds: number;
  teraflops: number;
  peakBytes: number;
}

interface Peer {
  case: string;
  sizes: Record<string, unknown>;
  versions: Record<string, unknown>;
  rows: PeerRow[];
  /** Why a program has no row. */
  problems: Record<string, string>;
}

/** Without Node: kernels beside a copy of as many bytes, chunked ops beside their products alone. */
interface Native {
  group: string;
  name: string;
  milliseconds: number;
  shareOfCopy?: number;
  shareOfBound?: number;
  teraflops?: number;
}

/** Runs on one GPU and on several: tokens/s of all GPUs together, the median of the steps. */
interface Ranks {
  T: number;
  ranks: number;
  /** Options `parallel`. */
  parallel: string;
  tokensPerSecond: number;
  /** Of each GPU. */
  reservedBytes: number;
}

interface Results {
  date: string;
  commit?: string;
  gpu?: string;
  machine?: { cpu: string; threads: number };
  node?: string;
  driver?: string;
  powerLimitWatts?: number;
  cuda?: string;
  libraries?: string;
  command?: string;
  cases: Case[];
  peers?: Peer[];
  native?: Native[];
  ranks?: Ranks[];
}

const read = (name: string) => JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as Results;

/** The name of a result; earlier results call the built-in kernels 'own'. */
const shown = (name: string) => name.replace(/^own\b/, 'builtin');

/** A table in Markdown. */
function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${' --- |'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}

const whole = (value: number) => Math.round(value).toLocaleString('en');
const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
const time = (milliseconds: number) =>
  milliseconds < 1000 ? `${milliseconds.toPrecision(3)} ms` : `${(milliseconds / 1000).toPrecision(3)} s`;

function sizesOf(sizes: Record<string, unknown>, leftOut: readonly string[] = []): string {
  const entries = Object.entries(sizes).filter(([name, value]) => !leftOut.includes(name) && value !== false);
  return entries.map(([name, value]) => `${name} ${typeof value === 'number' ? whole(value) : value}`).join(', ');
}

/** Steps of Llama-3-8B, each with its own T. */
function steps(cases: readonly Case[]): string {
  const rows = cases
    .filter((each) => each.case === 'llama3')
    .flatMap(({ sizes, results }) =>
      results.map(({ name, milliseconds, teraflops, peakBytes, plannedBytes }) => {
        const T = Number(sizes.N);
        const gradients = sizes.gradientDtype === 'bfloat16' ? ', gradients in bf16' : '';
        const states = sizes.stateBits && !name.includes('states') ? `, ${sizes.stateBits}-bit states` : '';
        const planned =
          plannedBytes === undefined
            ? ''
            : plannedBytes === peakBytes
              ? ', as planned'
              : `, planned ${gigabytes(plannedBytes)}`;
        const what = name.replace(/^T \d+, (one step, )?/, '') + states + gradients;
        return [
          whole(T),
          what,
          time(milliseconds),
          whole((T / milliseconds) * 1000),
          whole(teraflops ?? 0),
          gigabytes(peakBytes) + planned,
        ];
      }),
    );
  if (rows.length === 0) return '';
  return `All parameters of Llama-3-8B, one sequence a step, bf16:\n\n${table(['T', 'step', 'time', 'tokens/s', "the model's TFLOP/s", 'reserved'], rows)}`;
}

/** Ops and small steps: time over that of the first, and memory beside the weights' gradients. */
function ops(cases: readonly Case[]): string {
  const rows = cases
    .filter((each) => each.case !== 'llama3')
    .flatMap(({ case: what, dtype, sizes, results }) =>
      results.map(({ name, milliseconds, ratio, peakBytes, weightGradientBytes = 0 }, i) => {
        const memory = `${whole((peakBytes - weightGradientBytes) / 2 ** 20)} MiB`;
        const of = i === 0 ? `${what}: ${dtype ? `${dtype}, ` : ''}${sizesOf(sizes, ['chunkSize'])}` : '';
        return [of, shown(name), time(milliseconds), ratio.toFixed(2), memory];
      }),
    );
  if (rows.length === 0) return '';
  return table(
    ['op or step', 'way', 'forward and backward', 'of the first', "memory, without the weights' gradients"],
    rows,
  );
}

/** Runs of Llama-3-8B on several GPUs beside one GPU at the same T. */
function ranksTable(all: readonly Ranks[]): string {
  if (all.length === 0) return '';
  const rows = all.map(({ T, ranks, parallel, tokensPerSecond, reservedBytes }) => {
    const alone = all.find((each) => each.T === T && each.ranks === 1)!;
    const share = tokensPerSecond / alone.tokensPerSecond / ranks;
    return [
      whole(T),
      ranks,
      parallel,
      whole(tokensPerSecond),
      ranks === 1 ? '' : `${(share * 100).toFixed(1)} %`,
      gigabytes(reservedBytes),
    ];
  });
  const head = ['T', 'GPUs', 'parallel', 'tokens/s', "of so many times one GPU's", 'reserved on each'];
  return `All parameters of Llama-3-8B, bf16, 8-bit states, one sequence for each GPU or pair of them:\n\n${table(head, rows)}`;
}

/** 9.19.0 for 91900. */
const versionOf = (cudnn: number) => [Math.floor(cudnn / 10000), Math.floor(cudnn / 100) % 100, cudnn % 100].join('.');

const OUT_OF_MEMORY = 'out of memory';

function peers(all: readonly Peer[]): string {
  if (all.length === 0) return '';
  const rows = all.flatMap(({ case: what, sizes, rows, problems }) => {
    const measured = rows.map(({ program, part, milliseconds, teraflops, peakBytes }) => [
      program.replaceAll('torch.', ''),
      part,
      time(milliseconds),
      whole(teraflops),
      gigabytes(peakBytes),
    ]);
    const failed = Object.entries(problems).filter(([, problem]) => problem === OUT_OF_MEMORY);
    const cells = [...measured, ...failed.map(([program]) => [program, '', OUT_OF_MEMORY, '', ''])];
    return cells.map((row, i) => [i === 0 ? `${what}: ${sizesOf(sizes)}` : '', ...row]);
  });
  const { torch, triton, transformers, cudnn } = all[0]!.versions;
  const title = `Beside PyTorch ${torch}, Triton ${triton}, transformers ${transformers}, cuDNN ${versionOf(Number(cudnn))}, in one run:`;
  return `${title}\n\n${table(['work', 'program', 'part', 'time', 'TFLOP/s', 'peak'], rows)}`;
}

/** Folded, since there are many. */
function native(all: readonly Native[]): string {
  if (all.length === 0) return '';
  const percent = (share?: number) => (share === undefined ? '' : `${Math.round(share * 100)} %`);
  const rows = all.map(({ group, name, milliseconds, shareOfCopy, shareOfBound, teraflops }) => [
    `${group}: ${shown(name)}`,
    time(milliseconds),
    percent(shareOfCopy),
    percent(shareOfBound),
    teraflops === undefined ? '' : whole(teraflops),
  ]);
  const head = ['kernel or op', 'time', 'speed of a copy of its bytes', 'of the products alone', 'TFLOP/s'];
  return `<details><summary>${rows.length} kernels and ops, without Node</summary>\n\n${table(head, rows)}\n\n</details>`;
}

/** The section of one file. */
function section(name: string): string {
  const results = read(name);
  const { date, commit, gpu, machine, node, driver, powerLimitWatts, cuda, libraries, command } = results;
  const facts = [
    date,
    gpu,
    machine && `${machine.cpu}, ${machine.threads} threads`,
    driver && `driver ${driver}`,
    powerLimitWatts && `${powerLimitWatts} W`,
    cuda && `CUDA ${cuda}`,
    libraries,
    node && `Node ${node}`,
    commit && `commit ${commit}`,
    command && `\`${command}\``,
    `[${name}.json](../benchmarks/results/${name}.json)`,
  ];
  const title = `${gpu?.split(',')[0] ?? 'CPU'}: ${name.replaceAll('_', ' ')}`;
  const parts = [`### ${title}`, `${facts.filter(Boolean).join('; ')}.`];
  return [
    ...parts,
    steps(results.cases),
    ranksTable(results.ranks ?? []),
    ops(results.cases),
    peers(results.peers ?? []),
    native(results.native ?? []),
  ]
    .filter(Boolean)
    .join('\n\n');
}

/** Every section of docs/benchmarks.md that is made from results. */
export function resultTables(): string {
  const links = EARLIER.map((name) => `[${name}](../benchmarks/results/${name}.json)`).join(', ');
  return `${SHOWN.map(section).join('\n\n')}\n\nEarlier results: ${links}.`;
}

/** Steps of Llama-3-8B beside HuggingFace's, for the README. */
export function peerTable(): string {
  const steps = PEERS.flatMap((name) => read(name).peers ?? []).filter((peer) => peer.case === 'step');
  const lengths = [...new Set(steps.map(({ sizes }) => Number(sizes.T)))].sort((a, b) => a - b);
  const rows = lengths.map((T) => {
    const ofLength = steps.filter(({ sizes }) => Number(sizes.T) === T);
    const told = (begin: string) => {
      const row = ofLength.flatMap(({ rows }) => rows).find(({ program }) => program.startsWith(begin));
      if (row) return `${time(row.milliseconds)}, ${gigabytes(row.peakBytes)}`;
      const failed = ofLength.flatMap(({ problems }) => Object.entries(problems));
      return failed.find(([program]) => program.startsWith(begin))?.[1] ?? 'not measured';
    };
    return [whole(T), told('eager'), told('compile'), told('minisequence')];
  });
  return table(['T', 'transformers', 'with compiled layers', 'this package'], rows);
}
