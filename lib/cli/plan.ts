// minisequence plan: the memory of a training step on a GPU that need not be here, and the longest sequences that fit.
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { InvalidArgumentError } from 'commander';
import type { Parameter } from '../autograd/parameter.ts';
import { parseJsonFile, readSmallFile } from '../io/json.ts';
import { readConfig } from '../io/weights.ts';
import { writeWhole } from '../io/whole_file.ts';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import { addLora } from '../models/lora.ts';
import type { StepPolicy } from '../models/policy.ts';
import { presetConfig, presets } from '../models/presets.ts';
import type { StateBits } from '../optim/adamw_state.ts';
import { Shards } from '../ranks/shards.ts';
import { planPage } from '../report/plan_page.ts';
import { openDevice } from '../runtime/device.ts';
import { dtypes, type GradientDtype } from '../runtime/dtype.ts';
import { categories, formatBytes, type MemoryStatistics } from '../runtime/memory/statistics.ts';
import { type PolicyMemory, policyBefore } from '../step/before.ts';
import { memoryByLength } from '../step/by_length.ts';
import { type LongestStep, longestSteps } from '../step/longest.ts';
import { type StepOperations, stepOperations } from '../step/operations.ts';
import { type PlanOptions, paperSetting, planStep } from '../step/plan.ts';
import { secondsByGpu } from '../step/rates.ts';
import { stepTimeline } from '../step/timeline.ts';
import { policyText, rungText, whole, whyText } from './policy_text.ts';

export interface PlanArguments {
  model: string;
  memory: number;
  hostMemory?: number;
  sequenceLength?: number;
  max: boolean;
  batchSize: number;
  dtype: 'float32' | 'bfloat16';
  gradientDtype: GradientDtype;
  lora?: number;
  '4bit': boolean;
  stateBits: `${StateBits}`;
  masterWeights: boolean;
  inBackward: boolean;
  /** The paper's own setting instead of these. */
  paper: boolean;
  packed: boolean;
  /** Ranks that share the optimizer's states. */
  gpus: number;
  device: 'cpu' | 'cuda';
  ignoreFields?: string[];
  /** A page that is written. */
  html?: string;
  json: boolean;
}

/** Lengths that `--max` tries are multiples of it. */
const GRANULE = 1024;

interface Report {
  model: string;
  parameters: number;
  memoryLimit: number;
  hostMemoryLimit: number;
  batchSize: number;
  sequenceLength: number;
  policy: StepPolicy;
  /** Bytes of the step under it. */
  memory: Pick<MemoryStatistics, 'reservedBytes' | 'peakBytes' | 'peak' | 'hostBytes'>;
  /** The policy that was tried just before it and does not fit; null: it is the first. */
  before: PolicyMemory | null;
  operations: StepOperations;
  /** Ranks that share the optimizer's states; the figures are those of the one with the largest part. */
  gpus: number;
  /** Bytes of gradients and weights that each sends to the others in a step. */
  sentBytes: number;
  /** About how long the step takes on GPUs whose rates are known, by name. */
  seconds: ReturnType<typeof secondsByGpu>;
  /** With --max: of each rung. */
  longest?: LongestStep[];
  longestT?: number;
}

/** Prints the plan of a step. Where none fits, the error says what it takes. */
export async function runPlan({ model, json, html, ...options }: PlanArguments): Promise<void> {
  if (options.max === (options.sequenceLength !== undefined)) {
    throw new RangeError('plan: give either --sequence-length, or --max for the longest that fits');
  }
  const quantization = options['4bit'] ? 'nf4' : null;
  const config = decoderConfig(await configOf(model), { ignoreFields: options.ignoreFields, quantization });
  if (config.quantization && options.lora === undefined) {
    throw new RangeError(
      'plan: projections in 4 bits are frozen, so that adapters alone are trained: give --lora RANK',
    );
  }
  const report = planned(model, config, options);
  if (html !== undefined) {
    const text = pageOf(report, config, shapeOf(options));
    await writeWhole(html, (handle) => handle.writeFile(text));
  }
  console.log(json ? JSON.stringify(report, null, 2) : format(report));
}

/** Bytes from '80GiB', '80GB' or '85899345920'. */
export function bytesFrom(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?(?:([KMGT])(i?)B|B)?$/i.exec(text.trim());
  const [, digits, unit, binary] = match ?? [];
  const power = unit ? 'KMGT'.indexOf(unit.toUpperCase()) + 1 : 0;
  const bytes = Math.floor(Number(digits) * (binary ? 1024 : 1000) ** power);
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new InvalidArgumentError('It must be bytes, such as 80GiB, 80GB or 85899345920.');
}

/** The config.json of a folder, a file, or a preset. */
async function configOf(model: string): Promise<HuggingFaceConfig> {
  const found = statSync(model, { throwIfNoEntry: false });
  if (found?.isDirectory()) return await readConfig(model);
  if (found) {
    const source = parseJsonFile(model, await readSmallFile(model));
    if (typeof source === 'object' && source !== null && !Array.isArray(source)) return source as HuggingFaceConfig;
    throw new Error(`${model}: is not a JSON object`);
  }
  try {
    return presetConfig(model);
  } catch (error) {
    throw new RangeError(
      `--model ${model}: is no folder, no config.json and none of the presets ${Object.keys(presets).join(', ')}`,
      { cause: error },
    );
  }
}

type StepArguments = Omit<PlanArguments, 'model' | 'json' | 'html' | 'ignoreFields'>;

/** What a step's memory depends on, without its length. */
function shapeOf({ batchSize: B, dtype, gradientDtype, masterWeights, inBackward, ...options }: StepArguments) {
  const ofOptimizer = { stateBits: Number(options.stateBits) as StateBits, masterWeights, inBackward };
  const step: Omit<PlanOptions, 'T'> = {
    B,
    dtype,
    gradientDtype,
    ...(options.paper ? paperSetting : ofOptimizer),
    memoryLimit: options.memory,
    hostMemoryLimit: options.hostMemory ?? 0,
    isPacked: options.packed,
    shards: options.gpus > 1 ? new Shards(0, options.gpus) : null,
    lora: options.lora === undefined ? null : { rank: options.lora },
    like:
      options.device === 'cuda'
        ? { kind: 'cuda', attention: 'cudnn' }
        : { kind: 'cpu', threads: availableParallelism() },
  };
  return step;
}

/** Lengths of the plots: up to a quarter more than the planned one. */
const POINTS = 9;

/** The page of a plan. */
function pageOf(report: Report, config: DecoderConfig, step: Omit<PlanOptions, 'T'>): string {
  const { model, parameters, batchSize: B, sequenceLength: T, memoryLimit, policy, before } = report;
  const { memoryLimit: _, hostMemoryLimit: __, fixed: ___, ...shape } = step;
  const lengths = Array.from({ length: POINTS }, (_, i) => Math.ceil((1.25 * T * (i + 1)) / POINTS));
  return planPage({
    model,
    parameters,
    B,
    T,
    memoryLimit,
    policy: [policyText(policy), whyText(before, memoryLimit)],
    byLength: memoryByLength(config, { ...shape, fixed: step.fixed }, lengths),
    timeline: stepTimeline({ config, T, policy, ...shape }),
  });
}

function planned(model: string, config: DecoderConfig, options: StepArguments): Report {
  const step = shapeOf(options);
  const { B, memoryLimit, hostMemoryLimit = 0 } = step;
  const longest = options.max ? longestSteps(config, { ...step, granule: GRANULE }) : undefined;
  const longestT = longest && Math.max(...longest.map(({ T }) => T));
  const T = longestT === undefined ? options.sequenceLength! : longestT || GRANULE; // where nothing fits, its error says so
  const plan = planStep(config, { ...step, T });
  const { policy } = plan;
  const { reservedBytes, peakBytes, peak, hostBytes } = plan.memory;
  return {
    model,
    parameters: numParameters(config),
    memoryLimit,
    hostMemoryLimit,
    batchSize: B,
    sequenceLength: T,
    policy,
    memory: { reservedBytes, peakBytes, peak, hostBytes },
    before: policyBefore(config, { ...step, T }, plan),
    operations: stepOperations(config, { B, T, policy, lora: step.lora }),
    gpus: options.gpus,
    sentBytes: sentBytes(config, step, options.gpus),
    seconds: options.gpus > 1 ? {} : secondsByGpu(config, { ...step, T, policy }), // how long an exchange takes is not known
    longest,
    longestT,
  };
}

function numParameters(config: DecoderConfig): number {
  using device = openDevice('meta');
  using model = new Decoder(config, { device, dtype: 'bfloat16' });
  return model.numParameters();
}

/** What a rank sends: of the other ranks' parts its gradients, and its part of the weights to each. */
function sentBytes(
  config: DecoderConfig,
  { dtype, gradientDtype, lora }: Omit<PlanOptions, 'T'>,
  gpus: number,
): number {
  using device = openDevice('meta');
  using model = new Decoder(config, { device, dtype, gradientDtype });
  if (lora) addLora(model, lora);
  const each = ({ size, sizeBytes, gradientDtype }: Parameter) => sizeBytes + size * dtypes[gradientDtype].bytes;
  const bytes = model.trainableParameters().reduce((sum, parameter) => sum + each(parameter), 0);
  return Math.round((bytes * (gpus - 1)) / gpus);
}

const BAR = 40;
/** A bar of a chart on a terminal, full for `most`. */
const barOf = (value: number, most: number) => '#'.repeat(Math.round((BAR * value) / most));

/** Two digits: 0.45 s, 36 s. */
const secondsText = (seconds: number) => `${whole(Number(seconds.toPrecision(2)))} s`;

function format(report: Report): string {
  const {
    model,
    parameters,
    memoryLimit,
    hostMemoryLimit,
    batchSize: B,
    sequenceLength: T,
    policy,
    memory,
    before,
  } = report;
  const line = (name: string, text: string) => `${name.padEnd(13)} ${text}`;
  const { reservedBytes, peakBytes, peak, hostBytes } = memory;
  const lines = [
    `${model}: ${whole(parameters)} parameters; ${B === 1 ? 'one sequence' : `${B} sequences`} of ${whole(T)} tokens`,
    line('policy', policyText(policy)),
    line('', whyText(before, memoryLimit)),
    '',
  ];
  for (const category of categories) {
    const bytes = peak[category];
    if (bytes === 0) continue;
    const bar = process.stdout.isTTY ? `  ${barOf(bytes, peakBytes)}` : '';
    lines.push(line(category, `${formatBytes(bytes).padStart(11)}${bar}`));
  }
  lines.push(line('peak', formatBytes(peakBytes).padStart(11)));
  lines.push(line('reserved', `${formatBytes(reservedBytes).padStart(11)}  of ${formatBytes(memoryLimit)}`));
  if (hostMemoryLimit > 0)
    lines.push(line('host', `${formatBytes(hostBytes).padStart(11)}  of ${formatBytes(hostMemoryLimit)}`));
  const { forward, backward, recomputed, attention, total } = report.operations;
  const tera = (count: number) => `${whole(Number((count / 1e12).toPrecision(4)))}e12`;
  const parts = `forward ${tera(forward)}, backward ${tera(backward)}, computed again ${tera(recomputed)}`;
  lines.push('', line('operations', `${tera(total)}: ${parts}; of these attention ${tera(attention)}`));
  const times = Object.entries(report.seconds).map(([gpu, seconds]) => `${secondsText(seconds)} on one ${gpu}`);
  if (times.length > 0) lines.push(line('time', `about ${times.join(', ')}`));
  if (report.gpus > 1) {
    const text = `${report.gpus} share the optimizer's states; each sends ${formatBytes(report.sentBytes)} a step`;
    lines.push(line('GPUs', text));
  }
  if (report.longest) {
    lines.push('', 'longest T of each rung:');
    for (const { rung, T } of report.longest) {
      const bar = process.stdout.isTTY ? `${barOf(T, Math.max(report.longestT!, 1)).padEnd(BAR)}  ` : '';
      lines.push(`  ${whole(T).padStart(11)}  ${bar}${rungText(rung)}`);
    }
  }
  return lines.join('\n');
}
