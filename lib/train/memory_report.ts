// What a step's memory would be without mini-sequences, from `meta`.

import type { LoraLayout } from '../models/adapter.ts';
import { decoderConfig } from '../models/config.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import { presetConfig } from '../models/presets.ts';
import { tokensOfRank } from '../models/sequence_part.ts';
import type { StateBits } from '../optim/adamw_state.ts';
import type { Shards } from '../ranks/shards.ts';
import type { DeviceTarget } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import { plainPolicy, unchunked } from '../step/plan.ts';
import { simulateStep } from '../step/simulate.ts';
import type { RunConfig } from './config.ts';
import type { RunStart } from './events.ts';

/** Bytes that one step reserves. */
export interface MemoryComparison {
  /** Everything saved, nothing chunked: ordinary training. */
  plain: number;
  /** The same policy with chunking off. */
  unchunked: number;
  /** With mini-sequences. */
  miniSequence: number;
}

export interface ComparedStep {
  config: DecoderConfig;
  B: number;
  T: number;
  dtype: Dtype;
  gradientDtype?: GradientDtype;
  accumulationSteps: number;
  isPacked: boolean;
  /** Ranks that share each sequence. @default 1 */
  sequence?: number;
  lora?: LoraLayout | null;
  masterWeights?: boolean;
  stateBits?: StateBits;
  shards?: Shards | null;
  inBackward?: boolean;
  policy: StepPolicy;
  like: DeviceTarget;
}

type ComparedStart = Pick<RunStart, 'model' | 'policy' | 'longestSequence' | 'isPacked' | 'shards'>;

/** The longest step of a run. */
export function comparedStep(
  config: RunConfig,
  { model, policy, longestSequence, isPacked, shards }: ComparedStart,
): ComparedStep {
  return {
    config: model.config,
    B: config.batchSize,
    T: longestSequence,
    dtype: config.dtype,
    gradientDtype: config.gradientDtype,
    accumulationSteps: config.accumulationSteps,
    isPacked,
    sequence: config.parallel.sequence,
    lora: model.lora?.layout,
    masterWeights: config.masterWeights,
    stateBits: config.optimizer.stateBits,
    shards,
    inBackward: config.optimizer.inBackward,
    policy,
    like: model.device.target,
  };
}

export function compareMemory({ policy, ...step }: ComparedStep): MemoryComparison {
  const N = step.B * tokensOfRank(step.T, step.sequence ?? 1);
  const reserved = (policy: StepPolicy) => simulateStep({ ...step, policy }).reservedBytes;
  return { plain: reserved(plainPolicy(N)), unchunked: reserved(unchunked(policy, N)), miniSequence: reserved(policy) };
}

/** The same comparison for Llama-3-8B at T = 64K on one GPU, in bf16 with f32 optimizer state. */
export function compareLlama3(): MemoryComparison {
  return compareMemory({
    config: decoderConfig(presetConfig('Llama-3-8B')),
    B: 1,
    T: 65536,
    dtype: 'bfloat16',
    accumulationSteps: 1,
    isPacked: false,
    policy: { mlpChunkSize: 4096, lossChunkSize: 4096, mlpSave: 'input', recompute: 'attention' },
    like: { kind: 'cuda' },
  });
}

/** Three lines for people. */
export function formatComparison(
  title: string,
  { plain, unchunked, miniSequence }: MemoryComparison,
  measured?: number,
): string {
  const rows: [string, number][] = [
    ['everything saved, nothing chunked', plain],
    ['same policy, nothing chunked', unchunked],
    ['mini-sequences', miniSequence],
  ];
  if (measured !== undefined) rows.push(['mini-sequences, measured', measured]);
  const lines = rows.map(
    ([name, bytes]) => `  ${name.padEnd(34)} ${formatBytes(bytes).padStart(11)}  ${(plain / bytes).toFixed(2)}x less`,
  );
  return [title, ...lines].join('\n');
}
