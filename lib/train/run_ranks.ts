// What a run of several ranks does beside its steps: they meet, begin alike, take turns, and end together.
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { packageInfo } from '../io/package_info.ts';
import { sequenceRanks } from '../models/sequence_part.ts';
import type { SequenceRanks } from '../ops/head_exchange.ts';
import type { RankPlace } from '../ranks/place.ts';
import { Shards } from '../ranks/shards.ts';
import { RankStore } from '../ranks/store.ts';
import type { Device } from '../runtime/device.ts';
import { addon } from '../runtime/native.ts';
import type { RunConfig } from './config.ts';

/** What one rank of a run knows of the others; every rank calls each method in the same order. */
export class RunRanks {
  readonly #store: RankStore | null;
  #numGathers = 0;

  private constructor(store: RankStore | null) {
    this.#store = store;
  }

  /**
   * Meets the ranks, does a rank's work and waits for the others' end.
   * @param place null: this process is alone
   * @throws RankError where another rank is lost; where this one fails, the others get its message
   */
  static async meet<Result>(place: RankPlace | null, work: (ranks: RunRanks) => Promise<Result>): Promise<Result> {
    if (!place) return await work(new RunRanks(null));
    const store = await RankStore.connect(place, { version: packageInfo().version });
    try {
      const result = await work(new RunRanks(store));
      await store.leave();
      return result;
    } catch (error) {
      if (!store.failure.aborted) {
        store.fail(error instanceof Error ? error.message : String(error));
        const told = new Promise((resolve) => store.failure.addEventListener('abort', resolve, { once: true }));
        await Promise.race([told, wait(2000, undefined, { ref: false })]);
        throw error;
      }
      throw store.failure.reason;
    } finally {
      store.close();
    }
  }

  get size(): number {
    return this.#store?.place.size ?? 1;
  }
  get rank(): number {
    return this.#store?.place.rank ?? 0;
  }
  /** Null where there is one rank. */
  get store(): RankStore | null {
    return this.#store;
  }
  /** Whether this rank writes files and tells what happens. */
  get isFirst(): boolean {
    return this.rank === 0;
  }

  /** This rank's part of what ranks share; null: they share nothing, or there is one rank. */
  shards({ parallel }: RunConfig): Shards | null {
    return parallel.shard === 'optimizer' && this.size > 1 ? new Shards(this.rank, this.size) : null;
  }

  /** @throws RangeError unless parallel.sequence divides the ranks */
  requireSequence({ parallel: { sequence } }: RunConfig): void {
    if (this.size % sequence === 0) return;
    throw new RangeError(
      `parallel.sequence: ${sequence} ranks share each sequence, and there ${this.size === 1 ? 'is 1 rank' : `are ${this.size} ranks`}: ` +
        'start a multiple of them (--gpus, or a launcher)',
    );
  }

  /** Those that share this one's sequences; null: none do. */
  sequence({ parallel }: RunConfig): SequenceRanks | null {
    return sequenceRanks(this.rank, parallel.sequence);
  }

  /** Which of the parts this rank is of that compute micro-batches of their own: one rank each, or those that share sequences. */
  part({ parallel: { sequence } }: RunConfig): { rank: number; size: number } {
    return { rank: Math.floor(this.rank / sequence), size: this.size / sequence };
  }

  /** Values of all ranks, by rank. */
  async gather<Value>(value: Value): Promise<Value[]> {
    if (!this.#store) return [value];
    this.#numGathers += 1;
    return await this.#store.gather(`run ${this.#numGathers}`, value);
  }

  /** Whether any rank says so. */
  async any(value: boolean): Promise<boolean> {
    return (await this.gather(value)).includes(true);
  }

  /** Rank 0 does it, then the others: they find in files what rank 0 has made. */
  async inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    if (!this.isFirst) await this.gather(null);
    const result = await work();
    if (this.isFirst) await this.gather(null);
    return result;
  }

  /** @throws Error unless all ranks have the same value. @param what in the message, e.g. 'configuration' */
  async requireSame(what: string, value: string): Promise<void> {
    const values = await this.gather(value);
    const other = values.findIndex((each) => each !== values[0]);
    if (other > 0) {
      throw new Error(`ranks: rank ${other} has another ${what} than rank 0; give all the same`);
    }
  }

  /** @throws Error where two ranks have one GPU */
  async requireOwnGpu(device: Device): Promise<void> {
    if (device.target.kind !== 'cuda') return;
    const own = `${hostname()} ${process.env.CUDA_VISIBLE_DEVICES ?? ''} ${device.name}`;
    const all = await this.gather(own);
    const other = all.findIndex((each, rank) => each === own && rank !== this.rank);
    if (other >= 0) {
      throw new Error(
        `ranks: ${device.name} of ${hostname()} is that of ranks ${other} and ${this.rank}; each needs a GPU of its own (LOCAL_RANK says which)`,
      );
    }
  }

  /** Stops what waits for the user's signal when a rank is lost, too. */
  stopSignal(signal?: AbortSignal): AbortSignal | undefined {
    const failure = this.#store?.failure;
    if (!failure) return signal;
    return signal ? AbortSignal.any([signal, failure]) : failure;
  }
}

/** The device of this rank: GPU number LOCAL_RANK, or its only one. */
export function deviceOfRank({ device }: RunConfig, ranks: RunRanks): RunConfig['device'] {
  const place = ranks.store?.place;
  if (!place) return device;
  if (/^cuda:/.test(device) && place.localSize > 1) {
    throw new RangeError(
      `device: '${device}' is one GPU, and ${place.localSize} ranks of this machine need one each: use 'cuda'`,
    );
  }
  if (device === 'cpu' || (device === 'auto' && addon().describe_cuda().problem !== '')) return 'cpu';
  const { devices } = addon().describe_cuda();
  return devices.length === 1 ? 'cuda' : `cuda:${place.localRank}`;
}
