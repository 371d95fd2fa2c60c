// Attention of a layer, its projections included, by groups of heads, so that the backward has queries, keys and values of one group alone.

import { Region } from '../autograd/region.ts';
import { isFirstRun, noGrad, operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import type { AttentionOptions } from './attention.ts';
import { requireCount, requireFloat, requireShape, rowsAndCols } from './check.ts';
import type { HeadExchange } from './head_exchange.ts';
import { type Rope, rotationOptions } from './rope.ts';
import { attentionBackwardWorkspace, attentionForwardWorkspace } from './workspace.ts';

/** Heads [begin, end) of a projection. */
export interface HeadRange {
  begin: number;
  end: number;
}

/**
 * Queries, keys or values before their rotation, (N,heads·D).
 * @param x (N,C), normalised
 * @param heads which ones, as constants that nothing is recorded of; null: all, with gradients
 */
export type ProjectHeads = (x: Tensor, heads: HeadRange | null) => Tensor;

export interface AttentionInGroupsOptions extends AttentionOptions {
  numHeads: number;
  numKeyValueHeads: number;
  /** Number of groups, a divisor of numKeyValueHeads. */
  groups: number;
  /** What the projections read, (N,C), from x; null: x itself. */
  normalized: ((x: Tensor) => Tensor) | null;
  project: Record<'q' | 'k' | 'v', ProjectHeads>;
  /** Rotation of queries and keys; null: none. */
  rope: Rope | null;
  /**
   * Where x has a rank's tokens of sequences that several ranks share: T and documentStart are then for the rotation alone. documentStart
   * here is (B·exchange.T,), of all ranks' tokens. @default null
   */
  shared?: { exchange: HeadExchange; documentStart: Tensor | null } | null;
}

/** Queries, keys and values, or their gradients. */
type Heads = Record<'q' | 'k' | 'v', Tensor>;

/**
 * attention(rope(q), rope(k), v), (N,H·D), of the projections of normalized(x). The first run computes all heads at once, as those ops would
 * alone. A second run and the backward take the heads group by group: H/groups query heads and the G/groups key/value heads that they read.
 *
 * The backward computes a group's queries, keys and values again, and writes the gradient of its queries over that of its output. The
 * projections' own backward then runs once, over all heads: weights get their gradients whole, and dx is summed as without groups.
 *
 * Bytes of an element are 2 in bf16. Per token the backward has, besides dx at its end: the gradients of out and of all keys and values,
 * (H + 2·G)·D elements; out, H·D; and of one group either normalized(x) and what is projected, or attention's inputs and outputs.
 * @param x (N,C)
 */
export function attentionInGroups(x: Tensor, options: AttentionInGroupsOptions): Tensor {
  const op = 'attentionInGroups';
  const { numHeads: H, numKeyValueHeads: G, headSize: D, groups, T, rope, normalized, project } = options;
  const { scale = 1 / Math.sqrt(D), window = 0, softcap = 0, documentStart = null, shared = null } = options;
  const exchange = shared?.exchange ?? null;
  requireFloat(op, 'x', x);
  for (const name of ['numHeads', 'numKeyValueHeads', 'headSize', 'groups', 'T'] as const)
    requireCount(op, name, options[name]);
  if (H % G !== 0) throw new RangeError(`${op}: numHeads ${H} must be a multiple of numKeyValueHeads ${G}`);
  if (G % groups !== 0) throw new RangeError(`${op}: groups ${groups} must divide numKeyValueHeads ${G}`);
  const [N] = rowsAndCols(x);
  if (N % T !== 0) throw new RangeError(`${op}: x has ${N} rows, not a multiple of T ${T}`);
  const { device, dtype } = x;
  const B = N / T;
  const whole = exchange ? exchange.T : T;
  const scores = { T: whole, D, scale, window, softcap };
  /** Numbers of heads of each of `parts` equal parts. */
  const numOf = (parts: number) => ({ q: H / parts, k: G / parts, v: G / parts });
  /** The same of this rank, which may have a part of them. */
  const ownOf = (n: number, parts: number) => {
    const ofGroup = n / groups;
    return ((exchange ? exchange.own(ofGroup) : ofGroup) * groups) / parts;
  };
  const sizes = (parts: number) => ({
    B,
    T: whole,
    H: ownOf(H, parts),
    G: ownOf(G, parts),
    D,
    dtype,
    hasDocuments: (shared ? shared.documentStart : documentStart) !== null,
  });
  const make = (rows: number, cols: number, of = dtype) =>
    empty([rows, cols], { dtype: of, device, category: 'activation' });
  const rotation = rope && rotationOptions(rope, T);
  const inverseFrequencies = rope?.inverseFrequencies ?? null;
  const ofRows = { documentStart, inverseFrequencies, sharedStart: shared?.documentStart ?? null };
  const seenBy = (rows: typeof ofRows) => ({ documentStart: shared ? rows.sharedStart : rows.documentStart });
  /** Rotates queries and keys, or their gradients back, over what was there. */
  const rotate = ({ q, k }: Heads, { documentStart, inverseFrequencies }: typeof ofRows, isInverse = false) => {
    if (!rotation || !inverseFrequencies) return;
    for (const heads of [q, k]) {
      kernels.rope(heads, inverseFrequencies, documentStart, heads, { ...rotation, isInverse });
    }
  };
  /** Of this rank's heads and all tokens, where ranks share sequences; disposes x. @param parts of all heads, x is one of them */
  const toHeads = (x: Tensor, parts: number) => {
    if (!exchange) return x;
    const swapped = exchange.toHeads(x, groups / parts);
    x.dispose();
    return swapped;
  };
  /** The way back. @param n number of heads over all ranks */
  const toTokens = (y: Tensor, n: number, parts: number) => {
    if (!exchange) return y;
    const swapped = exchange.toTokens(y, n, groups / parts);
    y.dispose();
    return swapped;
  };
  const allToHeads = ({ q, k, v }: Heads, parts: number): Heads => ({
    q: toHeads(q, parts),
    k: toHeads(k, parts),
    v: toHeads(v, parts),
  });
  /** out (N,H·D) and lse (B,H·T), of this rank's H, of one of `parts` equal parts of the heads; disposes these. */
  const attend = (projected: Heads, parts: number) => {
    rotate(projected, ofRows);
    const heads = allToHeads(projected, parts);
    const out = make(B * whole, ownOf(H, parts) * D);
    const lse = make(B, ownOf(H, parts) * whole, computeDtype(dtype));
    tidy(() => {
      const workspace = attentionForwardWorkspace(device, sizes(parts));
      kernels.attention_forward({ ...heads, ...seenBy(ofRows) }, out, lse, workspace, scores);
    });
    for (const tensor of Object.values(heads)) tensor.dispose();
    return { out: toTokens(out, H / parts, parts), lse };
  };
  /** Queries, keys and values of group g before their rotation. */
  const headsOf = (x: Tensor, g: number): Heads =>
    noGrad(() => {
      const input = x.alias();
      const read = normalized ? normalized(input) : input;
      const of = (name: 'q' | 'k' | 'v') => {
        const count = numOf(groups)[name];
        const heads = project[name](read, { begin: g * count, end: (g + 1) * count });
        requireShape(op, name, heads, [N, count * D]);
        return heads;
      };
      return { q: of('q'), k: of('k'), v: of('v') };
    });

  const ofProjection = (name: 'q' | 'k' | 'v') => new Region((x) => project[name](x!, null));
  const regions = {
    normalized: normalized && new Region((x) => normalized(x!)),
    q: ofProjection('q'),
    k: ofProjection('k'),
    v: ofProjection('v'),
  };
  /** Whether normalized(x) needs a gradient. */
  let isRead = false;

  return operation({
    name: 'attention',
    inputs: { x },
    saved: { x, ...ofRows },
    savesMore: true,
    regions: Object.values(regions).filter((region) => region !== null),
    forward() {
      if (isFirstRun()) {
        return tidy(() => {
          const input = x.alias();
          input.requiresGrad = x.requiresGrad;
          const read = regions.normalized?.run([input]) ?? input;
          isRead = read.requiresGrad;
          const heads = { q: regions.q.run([read]), k: regions.k.run([read]), v: regions.v.run([read]) };
          if (read !== input) read.dispose();
          const { out, lse } = attend(heads, 1);
          return { output: out, more: { out: out.alias(), lse } };
        });
      }
      const out = make(N, H * D);
      const lse = make(B, ownOf(H, 1) * whole, computeDtype(dtype));
      for (let g = 0; g < groups; g++) {
        tidy(() => {
          const part = attend(headsOf(x, g), groups);
          kernels.cast(part.out, columnsOf(out, g, groups));
          kernels.cast(part.lse, columnsOf(lse, g, groups));
        });
      }
      return { output: out, more: { out: out.alias(), lse } };
    },
    backward(dout, { x, out, lse, ...ofRows }, gradients) {
      const d: Heads = { q: dout.isShared ? make(N, H * D) : dout.alias(), k: make(N, G * D), v: make(N, G * D) };
      for (let g = 0; g < groups; g++) {
        tidy(() => {
          const projected = headsOf(x, g);
          rotate(projected, ofRows);
          const heads = allToHeads(projected, groups);
          const ofGroup = (whole: Tensor) => {
            const part = make(whole.shape[0]!, whole.shape[1]! / groups, whole.dtype);
            kernels.cast(columnsOf(whole, g, groups), part);
            return part;
          };
          const like = (name: 'q' | 'k' | 'v') => make(B * whole, heads[name].shape[1]!);
          const own: Heads = { q: like('q'), k: like('k'), v: like('v') };
          const swapped = (tokens: Tensor) => toHeads(ofGroup(tokens), groups);
          const parts = { dout: swapped(dout), out: swapped(out), lse: ofGroup(lse) };
          const into = { dq: own.q, dk: own.k, dv: own.v };
          const workspace = attentionBackwardWorkspace(device, sizes(groups));
          kernels.attention_backward(
            parts.dout,
            { ...heads, ...seenBy(ofRows) },
            parts.out,
            parts.lse,
            into,
            workspace,
            scores,
          );
          const back = (name: 'q' | 'k' | 'v') => toTokens(own[name], numOf(groups)[name], groups);
          const ofTokens: Heads = { q: back('q'), k: back('k'), v: back('v') };
          rotate(ofTokens, ofRows, true);
          for (const name of ['q', 'k', 'v'] as const) kernels.cast(ofTokens[name], columnsOf(d[name], g, groups));
        });
      }
      for (const tensor of [dout, out, lse]) tensor.dispose();
      const read = normalized ? noGrad(() => normalized(x.alias())) : x.alias();
      read.requiresGrad = isRead;
      let dread: Tensor | null = null;
      for (const name of ['q', 'k', 'v'] as const) {
        if (regions[name].nodes.length === 0) d[name].dispose();
        else [dread = null] = regions[name].backward([read], d[name], gradients, { takesDy: true, onto: [dread] });
      }
      read.dispose();
      if (!dread || !regions.normalized) return { x: dread };
      const [dx = null] = regions.normalized.backward([x], dread, gradients, { takesDy: true });
      return { x: dx };
    },
  });
}

/** Columns of part g of `parts` equal ones. */
function columnsOf(whole: Tensor, g: number, parts: number): Tensor {
  const count = whole.shape[1]! / parts;
  return whole.columns(g * count, (g + 1) * count);
}
