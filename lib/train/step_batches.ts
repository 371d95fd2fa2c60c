// Which sequences a step trains on.
import type { Dataset, TokenBatch } from '../data/dataset.ts';
import { shuffledInTurns } from '../data/shuffle.ts';
import type { RunConfig } from './config.ts';

/** The micro-batches of a step, by seed and step number alone, so that a run can resume anywhere. */
export class StepBatches {
  readonly #dataset: Dataset;
  readonly #options: Pick<RunConfig, 'batchSize' | 'accumulationSteps' | 'seed'>;
  /** Of the epoch that was asked for last. */
  #order: { epoch: number; indices: Int32Array } | null = null;

  constructor(dataset: Dataset, options: Pick<RunConfig, 'batchSize' | 'accumulationSteps' | 'seed'>) {
    this.#dataset = dataset;
    this.#options = options;
  }

  get stepsPerEpoch(): number {
    const { batchSize, accumulationSteps } = this.#options;
    return Math.ceil(this.#dataset.length / (batchSize * accumulationSteps));
  }

  /** Those of a step, counted from 0: at most `accumulationSteps` of at most `batchSize` sequences each; an epoch's last step may have fewer. */
  async of(step: number): Promise<TokenBatch[]> {
    const { batchSize, accumulationSteps, seed } = this.#options;
    const perStep = batchSize * accumulationSteps;
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, indices: await shuffledInTurns(this.#dataset.length, seed, epoch) };
    }
    const begin = (step % this.stepsPerEpoch) * perStep;
    const indices = this.#order.indices.subarray(begin, begin + perStep);
    const batches: TokenBatch[] = [];
    for (let i = 0; i < indices.length; i += batchSize) {
      batches.push(await this.#dataset.batch([...indices.subarray(i, i + batchSize)]));
    }
    return batches;
  }
}
