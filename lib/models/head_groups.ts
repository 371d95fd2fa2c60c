// Groups of attention's heads: which numbers of groups a model allows.
import type { AttentionSpec, DecoderConfig } from './decoder_config.ts';

/** Most groups that the planner chooses: with more, a group's queries, keys and values are little beside what is there in any case. */
const MOST = 8;

/** Throws unless so many ranks can share sequences: each gets equally many query heads. */
export function requireSequenceRanks({ numHeads: H }: AttentionSpec, ranks: number): void {
  if (H % ranks === 0) return;
  throw new RangeError(`ranks that share sequences: ${ranks} must divide the ${H} query heads of every layer`);
}

/** Throws unless attention can take its heads in so many groups, each in equal parts on `ranks` ranks. */
export function requireHeadGroups(spec: AttentionSpec, groups: number, ranks = 1): void {
  if (groups === 1) return;
  const problem = problemOf(spec);
  if (problem) throw new RangeError(`attentionHeadGroups: ${problem}: must be 1, got ${groups}`);
  const { numHeads: H, numKeyValueHeads: G } = spec;
  if (!Number.isSafeInteger(groups) || groups < 1 || G % groups !== 0) {
    throw new RangeError(`attentionHeadGroups: must divide the ${G} key/value heads, got ${groups}`);
  }
  if ((H / groups) % ranks !== 0) {
    throw new RangeError(
      `attentionHeadGroups: ${ranks} ranks must divide the ${H / groups} query heads of a group, got ${groups} groups`,
    );
  }
}

/** The largest number of groups up to 8 that serves all layers and so many ranks that share sequences; 1: the model allows no groups. */
export function mostHeadGroups({ layers }: DecoderConfig, ranks = 1): number {
  const serves = (groups: number) =>
    layers.every(({ attention }) => {
      const { numHeads, numKeyValueHeads } = attention;
      const isDivided = numKeyValueHeads % groups === 0 && (numHeads / groups) % ranks === 0;
      return isDivided && !problemOf(attention);
    });
  for (let groups = MOST; groups > 1; groups--) if (serves(groups)) return groups;
  return 1;
}

/** Why the heads cannot be taken in groups; null if they can. */
function problemOf({ qkNorm, isFused, areValuesKeys, hasValueNorm, queryGrowth }: AttentionSpec): string | null {
  if (qkNorm === 'all') return 'queries and keys are normalised over all heads together, which groups do not have';
  if (isFused) return 'queries, keys and values are rows of one weight';
  if (areValuesKeys) return 'values are projected as keys';
  if (hasValueNorm) return 'values are normalised';
  if (queryGrowth) return 'queries grow with their position';
  return null;
}
