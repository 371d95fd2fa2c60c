// Options, events and result of a run.
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { RankPlace } from '../ranks/place.ts';
import type { Shards } from '../ranks/shards.ts';
import type { EvaluationMetrics, StepMetrics } from './metrics.ts';
import type { RunPlan } from './policy.ts';
import type { Sample } from './samples.ts';

/** Something that does not end a run, and that its user should know. */
export interface RunWarning {
  /** For programs: the kind of warning. */
  code: WarningCode;
  /** For people: names the option or the file, and the numbers. */
  message: string;
}

/**
 * 'warm-up': the learning rate is never reached, or only at the end. 'unused-validation': data.validation is never used.
 * 'tokens-without-row': ids that the model does not have. 'documents': some are left out, or hold nothing to train on. 'ignored-fields': of records or of config.json.
 * 'inexact': the run continues on another machine. 'leftover': a file that cannot be removed. 'saved': a checkpoint of a run that fails.
 * 'report': report.html, run.json or TensorBoard's file cannot be written.
 */
export type WarningCode =
  | 'warm-up'
  | 'unused-validation'
  | 'tokens-without-row'
  | 'documents'
  | 'ignored-fields'
  | 'inexact'
  | 'leftover'
  | 'saved'
  | 'report';

/** How a run begins. */
export interface RunStart {
  model: Decoder;
  policy: StepPolicy;
  /** Why it has this policy. */
  plan: RunPlan;
  numSteps: number;
  /** Steps done before, in a run that is continued. */
  stepsDone: number;
  numTokens: number;
  numSequences: number;
  /** Rows of the longest one, padding included. */
  longestSequence: number;
  isPacked: boolean;
  /** This rank's part of what ranks share; null: they share nothing. */
  shards: Shards | null;
}

/** What happens in a run, in its order. */
export type RunEvent =
  /** Once, before the first step. */
  | { type: 'start'; start: RunStart }
  /** After each step, one step late. */
  | { type: 'step'; metrics: StepMetrics; numSteps: number }
  /** A step that was skipped because its loss or gradients were not finite. */
  | { type: 'skip'; message: string }
  /** After each validation. */
  | { type: 'evaluation'; metrics: EvaluationMetrics }
  /** A text that the model wrote. */
  | { type: 'sample'; sample: Sample }
  /** One was saved. */
  | { type: 'checkpoint'; step: number }
  /** What a user may not expect. Each is sent once. */
  | { type: 'warning'; warning: RunWarning }
  /** The last one of a run that ends without an error. */
  | { type: 'end'; result: TrainResult };

export interface TrainOptions {
  /** Stops between two micro-batches; a checkpoint and the model are saved. */
  signal?: AbortSignal;
  /** Continue from the last checkpoint in the run's folder, if there is one. @default false */
  resume?: boolean;
  /**
   * Continue even on another kind of machine or with another number of threads; the last bits of the losses then differ from those of an
   * uninterrupted run. @default false
   */
  allowOtherMachine?: boolean;
  /**
   * The place of this process among several that train one model, as `rankPlace(process.env)` tells it. Each step then has the micro-batches
   * of all ranks. Rank 0 writes the files and gets the events. @default null: this process is alone
   */
  ranks?: RankPlace | null;
  /** Gets every event once, in order; the functions below get those of one type. */
  onEvent?: (event: RunEvent) => void;
  onStart?: (start: RunStart) => void;
  onStep?: (metrics: StepMetrics, numSteps: number) => void;
  onEvaluation?: (metrics: EvaluationMetrics) => void;
  onSample?: (sample: Sample) => void;
  onSkip?: (message: string) => void;
  onWarning?: (warning: RunWarning) => void;
}

export interface TrainResult {
  /** Of every step, earlier ones of a continued run among them. */
  metrics: StepMetrics[];
  /** False where `signal` stopped it. */
  finished: boolean;
  outDir: string;
  policy: StepPolicy;
  /** Most bytes that the arena reserved in a step. */
  peakBytes: number;
}

/**
 * Thrown when a loss or gradient is NaN or infinite, or a parameter before it is saved. That step has changed no parameter, unless it
 * `isHalfDone`, but the next one, already enqueued, may have: do not use the model in memory, but the last checkpoint.
 */
export class NonFiniteError extends Error {
  override readonly name = 'NonFiniteError';
  /** Whether the step has changed parameters: a gradient was not finite inside a backward that updates others, or its update gave such values. */
  readonly isHalfDone: boolean;

  constructor(message: string, { isHalfDone = false } = {}) {
    super(message);
    this.isHalfDone = isHalfDone;
  }
}
