// Which sequences a step trains on.
import type { Dataset, TokenBatch } from '../data/dataset.ts';
import { shuffledInTurns } from '../data/shuffle.ts';
import { IGNORE_INDEX } from '../ops/loss_options.ts';
import type { RunConfig } from './config.ts';

export interface StepBatchesOptions extends Pick<RunConfig, 'batchSize' | 'accumulationSteps' | 'seed'> {
  /** This rank, from 0, of `size`. @default 0 of 1 */
  rank?: number;
  size?: number;
}

/** The micro-batches of a step, by seed and step number alone, so that a run can resume anywhere. */
export class StepBatches {
  readonly #dataset: Dataset;
  readonly #options: Required<StepBatchesOptions>;
  /** Of the epoch that was asked for last. */
  #order: { epoch: number; indices: Int32Array } | null = null;

  constructor(dataset: Dataset, options: StepBatchesOptions) {
    this.#dataset = dataset;
    this.#options = { rank: 0, size: 1, ...options };
  }

  /** Sequences of a step over all ranks. */
  get #perStep(): number {
    const { batchSize, accumulationSteps, size } = this.#options;
    return batchSize * accumulationSteps * size;
  }

  get stepsPerEpoch(): number {
    return Math.ceil(this.#dataset.length / this.#perStep);
  }

  /**
   * This rank's of a step, counted from 0: at most `accumulationSteps` of at most `batchSize` sequences each; an epoch's last step may have
   * fewer. Micro-batch i of the step is rank i mod size's. A rank that gets none has the step's first one without targets: it takes part in
   * every sum over ranks and adds nothing.
   */
  async of(step: number): Promise<(TokenBatch & { standsIn?: boolean })[]> {
    const { batchSize, seed, rank, size } = this.#options;
    const perStep = this.#perStep;
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, indices: await shuffledInTurns(this.#dataset.length, seed, epoch) };
    }
    const begin = (step % this.stepsPerEpoch) * perStep;
    const indices = this.#order.indices.subarray(begin, begin + perStep);
    const batches: TokenBatch[] = [];
    for (let i = rank * batchSize; i < indices.length; i += batchSize * size) {
      batches.push(await this.#dataset.batch([...indices.subarray(i, i + batchSize)]));
    }
    if (batches.length > 0) return batches;
    const first = await this.#dataset.batch([...indices.subarray(0, batchSize)]);
    return [
      { ...first, targets: new Int32Array(first.targets.length).fill(IGNORE_INDEX), numTargets: 0, standsIn: true },
    ];
  }
}
