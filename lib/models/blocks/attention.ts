// Grouped-query self-attention: query, key and value projections, their norms and rotations, and the output projection.
import { attention } from '../../ops/attention.ts';
import { attentionInGroups, type ProjectHeads } from '../../ops/attention_in_groups.ts';
import { cachedAttention } from '../../ops/cached_attention.ts';
import { HeadExchange, headsToTokens, tokensToHeads } from '../../ops/head_exchange.ts';
import { rmsNorm } from '../../ops/rms_norm.ts';
import { type Rope, rope } from '../../ops/rope.ts';
import { tidy } from '../../runtime/scope.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { AttentionSpec } from '../decoder_config.ts';
import { requireHeadGroups, requireSequenceRanks } from '../head_groups.ts';
import type { RopeConfig } from '../rope_config.ts';
import { longestShort, type RopeTables } from '../rope_tables.ts';
import type { Forward } from './forward.ts';
import { Norm } from './norm.ts';
import { type Maker, parameter, projectionWeight } from './parameters.ts';
import { type Projection, project, projectRows } from './projection.ts';

export class Attention {
  readonly #spec: AttentionSpec;
  /** Index of the layer; the cache stores keys and values by it. */
  readonly #index: number;
  readonly #q: Projection;
  readonly #k: Projection;
  readonly #v: Projection;
  readonly #o: Projection;
  readonly #qNorm: Norm | null;
  readonly #kNorm: Norm | null;
  /** (D,) ones, the weight of the norm of values; null: no such norm. */
  readonly #valueNorm: Tensor | null;
  readonly #eps: number;
  readonly #rope: { config: RopeConfig; tables: RopeTables } | null;

  constructor(spec: AttentionSpec, layer: { path: string; index: number }, maker: Maker) {
    const { numHeads: H, numKeyValueHeads: G, headSize: D, outputBias, qkNorm } = spec;
    const path = `${layer.path}.self_attn`;
    this.#spec = spec;
    this.#index = layer.index;
    const { inputs, output } = spec.isFused ? fused(spec, path, maker) : separate(spec, path, maker);
    [this.#q, this.#k, this.#v] = inputs;
    this.#o = { ...output, bias: outputBias ? parameter(maker, `${output.path}.bias`, maker.hiddenSize) : null };
    const norm = (name: string, heads: number) =>
      qkNorm && new Norm(`${path}.${name}`, qkNorm === 'heads' ? D : heads * D, maker);
    this.#qNorm = norm(spec.qkNormNames.q, H);
    this.#kNorm = norm(spec.qkNormNames.k, G);
    this.#valueNorm = spec.hasValueNorm ? maker.ones(D) : null;
    this.#eps = maker.norm.eps;
    this.#rope = spec.rope && { config: spec.rope, tables: maker.ropeTables(spec.rope, spec.rotatedSize) };
  }

  get projections(): Projection[] {
    const { isFused, areValuesKeys } = this.#spec;
    if (isFused) return [this.#q, this.#o];
    return areValuesKeys ? [this.#q, this.#k, this.#o] : this.parts;
  }

  /** The projections, with each part of a weight that several share. */
  get parts(): Projection[] {
    return [this.#q, this.#k, this.#v, this.#o];
  }

  /** @param x (N,C) */
  forward(x: Tensor, forward: Forward): Tensor {
    return this.projected(this.heads(x, forward), forward);
  }

  /**
   * The output's projection, (N,C).
   * @param out (N,H·D): of heads()
   */
  projected(out: Tensor, forward: Forward): Tensor {
    return project(out, this.#o, forward);
  }

  /**
   * What the heads read, (N,H·D), before the output's projection.
   * @param x (N,C)
   */
  heads(x: Tensor, forward: Forward): Tensor {
    const { numHeads: H, numKeyValueHeads: G, headSize, window, scale, softcap } = this.#spec;
    const { isNormedAfterRotation, areValuesKeys, queryGrowth } = this.#spec;
    const { tokens, cache } = forward;
    const { T, documentStart = null, sequence = null } = tokens;
    const exchange = this.#exchange(forward);
    /** Queries, keys or values of this rank's heads, of all tokens. */
    const ofRank = (x: Tensor, n: number) => (exchange ? tokensToHeads(x, exchange, n) : x);
    const angles = this.#rope && this.#angles(this.#rope, forward);
    /** Queries or keys, normalised and rotated as the specification says. */
    const rotated = (projected: Tensor, norm: Norm | null, growth: AttentionSpec['queryGrowth'] = null) =>
      tidy(() => {
        const turned = (x: Tensor) => (angles ? rope(x, { ...angles, growth }, T, documentStart) : x);
        const normalized = (x: Tensor) => (norm ? norm.forward(x) : x);
        return isNormedAfterRotation ? normalized(turned(projected)) : turned(normalized(projected));
      });
    return tidy(() => {
      const q = tidy(() => ofRank(rotated(project(x, this.#q, forward), this.#qNorm, queryGrowth), H));
      const [k, v] = areValuesKeys
        ? tidy(() => {
            const projected = project(x, this.#k, forward);
            return [ofRank(rotated(projected, this.#kNorm), G), ofRank(this.#values(projected), G)] as const;
          })
        : [
            tidy(() => ofRank(rotated(project(x, this.#k, forward), this.#kNorm), G)),
            tidy(() => ofRank(this.#values(project(x, this.#v, forward)), G)),
          ];
      const scores = { headSize, window, scale, softcap };
      if (exchange && sequence) {
        const out = attention(q, k, v, { ...scores, T: sequence.T, documentStart: sequence.documentStart });
        return headsToTokens(out, exchange, H);
      }
      if (!cache) return attention(q, k, v, { ...scores, T, documentStart });
      const kept = cache.append(this.#index, k, v);
      return cachedAttention(q, kept.k, kept.v, { ...scores, position: cache.length });
    });
  }

  /** @param projected (N,G·D) */
  #values(projected: Tensor): Tensor {
    return this.#valueNorm ? rmsNorm(projected, this.#valueNorm, { eps: this.#eps }) : projected;
  }

  /**
   * What the heads read, (N,H·D), by groups of heads; see attention_in_groups.ts.
   * @param x (N,C)
   * @param norm of the input, which the projections read; null: none
   * @throws RangeError if the groups do not divide the key/value heads, or a norm reads all heads together
   */
  headsInGroups(x: Tensor, norm: Norm | null, groups: number, forward: Forward): Tensor {
    const { numHeads, numKeyValueHeads, headSize: D, window, scale, softcap, isNormedAfterRotation } = this.#spec;
    const { T, documentStart = null, sequence = null } = forward.tokens;
    const exchange = this.#exchange(forward);
    requireHeadGroups(this.#spec, groups, sequence?.ranks.size);
    const angles = this.#rope && this.#angles(this.#rope, forward);
    /** Where a norm comes after the rotation, the projection has both. */
    const turnsBefore = isNormedAfterRotation ? angles : null;
    const heads =
      (projection: Projection, norm: Norm | null, angles: Rope | null): ProjectHeads =>
      (x, range) =>
        tidy(() => {
          const rows = range && { begin: range.begin * D, end: range.end * D };
          const projected = rows ? projectRows(x, projection, rows, forward) : project(x, projection, forward);
          const turned = angles ? rope(projected, angles, T, documentStart) : projected;
          return norm ? norm.forward(turned) : turned;
        });
    return attentionInGroups(x, {
      numHeads,
      numKeyValueHeads,
      headSize: D,
      groups,
      normalized: norm && ((x) => norm.forward(x)),
      project: {
        q: heads(this.#q, this.#qNorm, turnsBefore),
        k: heads(this.#k, this.#kNorm, turnsBefore),
        v: heads(this.#v, null, null),
      },
      rope: isNormedAfterRotation ? null : angles,
      T,
      documentStart,
      shared: exchange && { exchange, documentStart: sequence?.documentStart ?? null },
      window,
      scale,
      softcap,
    });
  }

  /** Null where tokens are whole sequences. */
  #exchange({ tokens: { sequence } }: Forward): HeadExchange | null {
    if (!sequence) return null;
    requireSequenceRanks(this.#spec, sequence.ranks.size);
    return new HeadExchange(sequence.ranks, sequence.T, this.#spec.headSize);
  }

  #angles({ config, tables }: { config: RopeConfig; tables: RopeTables }, { tokens, cache }: Forward): Rope {
    const { sequence } = tokens;
    const { T, documentStart } = sequence ? { ...sequence, T: sequence.givenT } : tokens;
    const { length = T } = tokens;
    if (documentStart && !cache && tables.dependsOn(T)) {
      throw new RangeError(
        `Decoder: ${config.type === 'dynamic' ? 'dynamic rope' : config.type} beyond the length of ${longestShort(config)} needs one document per sequence, got documentStart with T ${T}`,
      );
    }
    return {
      inverseFrequencies: tables.of(length),
      scale: 'attentionFactor' in config ? config.attentionFactor : 1,
      headSize: this.#spec.headSize,
      isInterleaved: this.#spec.isInterleaved,
    };
  }
}

interface Projections {
  /** Of queries, keys and values. */
  inputs: [Projection, Projection, Projection];
  /** Without its bias. */
  output: Projection;
}

function separate(spec: AttentionSpec, path: string, maker: Maker): Projections {
  const { numHeads: H, numKeyValueHeads: G, headSize: D, bias, areValuesKeys } = spec;
  const C = maker.hiddenSize;
  const names = areValuesKeys ? ['q', 'k'] : ['q', 'k', 'v'];
  // One allocation for the three weights, and one for their gradients. No product reads them as one; the arena's layout depends on it.
  const weights = maker.weights(
    names.map((name) => `${path}.${name}_proj.weight`),
    names.map((name) => [(name === 'q' ? H : G) * D, C]),
  );
  const output = outputOf(spec, path, maker);
  const [q, k, v] = names.map((name, i): Projection => {
    const weight = weights[i]!;
    const own = bias ? parameter(maker, `${path}.${name}_proj.bias`, weight.shape[0]!) : null;
    return { path: `${path}.${name}_proj`, weight, bias: own };
  });
  return { inputs: [q!, k!, v ?? k!], output };
}

/** One weight for the three, in the order of its rows. */
function fused(spec: AttentionSpec, path: string, maker: Maker): Projections {
  const { numHeads: H, numKeyValueHeads: G, headSize: D } = spec;
  const weight = projectionWeight(maker, `${path}.qkv_proj.weight`, (H + 2 * G) * D, maker.hiddenSize);
  const part = (begin: number, heads: number): Projection => ({
    path: `${path}.qkv_proj`,
    weight,
    bias: null,
    rows: { begin: begin * D, end: (begin + heads) * D },
  });
  return { inputs: [part(0, H), part(H, G), part(H + G, G)], output: outputOf(spec, path, maker) };
}

function outputOf({ numHeads: H, headSize: D }: AttentionSpec, path: string, maker: Maker): Projection {
  const weight = projectionWeight(maker, `${path}.o_proj.weight`, maker.hiddenSize, H * D);
  return { path: `${path}.o_proj`, weight, bias: null };
}
