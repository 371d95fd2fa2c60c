// One layer: attention and MLP, each with norms and a residual connection.
import { type InputStore, recompute } from '../../autograd/region.ts';
import { add, scale } from '../../ops/elementwise.ts';
import { tidy } from '../../runtime/scope.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { LayerSpec } from '../decoder_config.ts';
import { Attention } from './attention.ts';
import { Experts } from './experts.ts';
import type { Forward } from './forward.ts';
import { Mlp } from './mlp.ts';
import { Norm } from './norm.ts';
import type { Constant, Maker } from './parameters.ts';
import type { Projection } from './projection.ts';

/** The op of a layer's region up to attention's output, which a region around the layer may keep. */
export const HEADS = 'attentionHeads';

export class Layer {
  readonly #residualScale: number;
  /** Factor on the output; null: none. */
  readonly #scalar: Constant | null;
  readonly #attentionInput: Norm | null;
  readonly #attention: Attention;
  readonly #attentionOutput: Norm | null;
  readonly #mlpInput: Norm | null;
  readonly #mlpOutput: Norm | null;
  readonly #mlp: Mlp | Experts;

  constructor(spec: LayerSpec, index: number, maker: Maker) {
    const layer = { path: `model.layers.${index}`, index };
    const norm = (name: string | null) => (name ? new Norm(`${layer.path}.${name}`, maker.hiddenSize, maker) : null);
    const { norms } = spec;
    this.#residualScale = spec.residualScale;
    this.#attentionInput = norm(norms.attentionInput);
    this.#attention = new Attention(spec.attention, layer, maker);
    this.#attentionOutput = norm(norms.attentionOutput);
    this.#mlpInput = norm(norms.mlpInput);
    this.#mlpOutput = norm(norms.mlpOutput);
    const { experts } = spec.mlp;
    this.#mlp = experts ? new Experts(spec.mlp, experts, layer, maker) : new Mlp(spec.mlp, layer, maker);
    this.#scalar = spec.hasScalar ? maker.constant(`${layer.path}.layer_scalar`) : null;
  }

  get projections(): Projection[] {
    return [...this.#attention.projections, ...this.#mlp.projections];
  }

  /** The projections, with each part of a weight that several share. */
  get parts(): Projection[] {
    return [...this.#attention.parts, ...this.#mlp.projections];
  }

  /**
   * Runs the forward as a region that keeps what the policy says.
   * @param x (N,C)
   * @param store takes x between the region's runs; see inputStores(). @default null: the region keeps it
   */
  run(x: Tensor, forward: Forward, store: InputStore | null = null): Tensor {
    const { recompute: what } = forward.policy;
    if (what === 'none') return this.forward(x, forward);
    if (what === 'attentionSegments') {
      // Two regions: one around this layer rebuilds its output from x and the heads' output, which it keeps, without queries, keys and values.
      return tidy(() => {
        const out = recompute((x) => this.#heads(x, forward), [x], { name: HEADS, keep: ['attention'] });
        const afterHeads = (x: Tensor, out: Tensor) => tidy(() => this.#withAttention(x, out, forward));
        return recompute((x, out) => this.#withMlp(afterHeads(x!, out!), forward), [x, out]);
      });
    }
    return recompute((x) => this.forward(x, forward), [x], { keep: what === 'attention' ? this.#kept : [], store });
  }

  /** Ops whose outputs the policy `recompute: 'attention'` keeps: attention, and the MLP if a norm reads its output. */
  get #kept(): string[] {
    return this.#mlpOutput ? ['attention', this.#mlp.op] : ['attention'];
  }

  /** @param x (N,C) */
  forward(x: Tensor, forward: Forward): Tensor {
    const h = tidy(() => this.#withAttention(x, this.#heads(x, forward), forward));
    return this.#withMlp(h, forward);
  }

  #heads(x: Tensor, forward: Forward): Tensor {
    const { attentionHeadGroups: groups = 1 } = forward.policy;
    if (groups !== 1) return this.#attention.headsInGroups(x, this.#attentionInput, groups, forward);
    return this.#attention.heads(normalized(x, this.#attentionInput), forward);
  }

  /** @param out (N,H·D): of the heads */
  #withAttention(x: Tensor, out: Tensor, forward: Forward): Tensor {
    const projected = this.#attention.projected(out, forward);
    return this.#added(x, normalized(projected, this.#attentionOutput));
  }

  #withMlp(h: Tensor, forward: Forward): Tensor {
    return tidy(() => {
      const out = this.#mlp.forward(normalized(h, this.#mlpInput), forward);
      const y = this.#added(h, normalized(out, this.#mlpOutput));
      return this.#scalar ? scale(y, this.#scalar.value) : y;
    });
  }

  #added(x: Tensor, out: Tensor): Tensor {
    return add(x, this.#residualScale === 1 ? out : scale(out, this.#residualScale));
  }
}

/** norm(x), or x itself without a norm. */
function normalized(x: Tensor, norm: Norm | null): Tensor {
  return norm ? norm.forward(x) : x;
}
