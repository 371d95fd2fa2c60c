// Groups of attention's heads: which numbers of groups a model allows.
import type { AttentionSpec, DecoderConfig } from './decoder_config.ts';

/** Most groups that the planner chooses: with more, a group's queries, keys and values are little beside what is there in any case. */
const MOST = 8;

/** Throws unless attention can take its heads in so many groups. */
export function requireHeadGroups(spec: AttentionSpec, groups: number): void {
  if (groups === 1) return;
  const problem = problemOf(spec);
  if (problem) throw new RangeError(`attentionHeadGroups: ${problem}: must be 1, got ${groups}`);
  const { numKeyValueHeads: G } = spec;
  if (!Number.isSafeInteger(groups) || groups < 1 || G % groups !== 0) {
    throw new RangeError(`attentionHeadGroups: must divide the ${G} key/value heads, got ${groups}`);
  }
}

/** The largest number of groups up to 8 that serves all layers; 1: the model allows no groups. */
export function mostHeadGroups({ layers }: DecoderConfig): number {
  const serves = (groups: number) =>
    layers.every(({ attention }) => !problemOf(attention) && attention.numKeyValueHeads % groups === 0);
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
