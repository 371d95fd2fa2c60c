// A rank's part of sequences that several ranks share.
import type { SequenceRanks } from '../ops/head_exchange.ts';
import { IGNORE_INDEX } from '../ops/loss_options.ts';
import type { HostBatch } from './batch.ts';
import type { DecoderConfig } from './decoder_config.ts';
import { requireSequenceRanks } from './head_groups.ts';

/** Throws unless so many ranks can share sequences of this model. */
export function requireSequenceModel({ layers }: DecoderConfig, ranks: number): void {
  for (const { attention } of layers) requireSequenceRanks(attention, ranks);
}

/** Tokens of each sequence of T that each of so many ranks has; the last one's are padded. */
export function tokensOfRank(T: number, ranks: number): number {
  return Math.ceil(T / ranks);
}

/** The `shared` neighbouring ranks that one of them is of; null for 1, which shares nothing. `shared` must divide their number. */
export function sequenceRanks(rank: number, shared: number): SequenceRanks | null {
  return shared === 1 ? null : { first: rank - (rank % shared), size: shared, rank: rank % shared };
}

/**
 * The part of a batch that one of the ranks has: neighbouring tokens of every sequence, with the targets that they have in it. Sequences are
 * padded at their end to a multiple of the number of ranks: no token before sees the padding, and it has no target.
 */
export function sequencePart(batch: HostBatch, ranks: SequenceRanks): HostBatch {
  const { inputs, targets, documentStart = null, T = inputs.length } = batch;
  const t = tokensOfRank(T, ranks.size);
  const padded = t * ranks.size;
  const B = inputs.length / T;
  const first = ranks.rank * t;
  const part = (of: (n: number) => number, padding: number) =>
    Int32Array.from({ length: B * t }, (_, i) => {
      const place = first + (i % t);
      return place < T ? of(Math.floor(i / t) * T + place) : padding;
    });
  /** Its place in its document. */
  const position = (b: number, place: number) => {
    if (!documentStart) return place;
    return place < T ? b * T + place - documentStart[b * T + place]! : 0;
  };
  return {
    ...batch,
    inputs: part((n) => inputs[n]!, 0),
    targets: part((n) => targets[n]!, IGNORE_INDEX),
    T: t,
    length: batch.length ?? T,
    documentStart: Int32Array.from({ length: B * t }, (_, i) => i - position(Math.floor(i / t), first + (i % t))),
    sequence: {
      ranks,
      T: padded,
      givenT: T,
      documentStart:
        documentStart &&
        Int32Array.from({ length: B * padded }, (_, i) => i - position(Math.floor(i / padded), i % padded)),
    },
  };
}
