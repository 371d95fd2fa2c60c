// Low-rank adapters (LoRA, arXiv 2106.09685) of linear layers, outside and inside mini-sequence ops.
import type { OpGradients } from '../autograd/gradients.ts';
import { kernels, type LowRank } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireShape } from './check.ts';
import { type DropoutMask, dropout, requireMask } from './dropout.ts';
import { add, scale } from './elementwise.ts';
import { linear } from './linear.ts';

/** What an adapter adds to x·weightᵀ: scale · (dropout(x)·aᵀ)·bᵀ. */
export interface LowRankAdapter {
  /** (r,I), x's dtype. */
  a: Tensor;
  /** (O,r). */
  b: Tensor;
  scale: number;
  /** Number of its dropout. */
  op: number;
}

/** scale · dropout(x)·aᵀ, (N,r): what b is applied to. mask null: no dropout. */
export function lowRankInput(x: Tensor, adapter: LowRankAdapter, mask: DropoutMask | null): Tensor {
  if (mask) requireMask('adapters', mask);
  const kept = mask && mask.probability > 0 ? dropout(x, mask, adapter.op) : x;
  const product = linear(kept, adapter.a);
  const low = scale(product, adapter.scale);
  product.dispose();
  if (kept !== x) kept.dispose();
  return low;
}

/** x·weightᵀ + bias + scale · (dropout(x)·aᵀ)·bᵀ. */
export function adaptedLinear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  adapter: LowRankAdapter,
  mask: DropoutMask | null,
): Tensor {
  const low = lowRankInput(x, adapter, mask);
  const base = linear(x, weight, bias);
  const added = linear(low, adapter.b);
  const y = add(base, added);
  for (const tensor of [low, base, added]) tensor.dispose();
  return y;
}

/** The adapters of an op's projections, as its file needs them. */
export class OpAdapters {
  readonly #adapters: readonly (LowRankAdapter | null)[];
  readonly #mask: DropoutMask | null;

  constructor(adapters: readonly (LowRankAdapter | null | undefined)[], mask: DropoutMask | null | undefined) {
    this.#adapters = adapters.map((adapter) => adapter ?? null);
    if (mask) requireMask('adapters', mask);
    this.#mask = mask && mask.probability > 0 ? mask : null;
  }

  /** a and b of every projection, null where there is none: inputs of the op. */
  get tensors(): (Tensor | null)[] {
    return this.#adapters.flatMap((adapter) => (adapter ? [adapter.a, adapter.b] : [null, null]));
  }
  get present(): Tensor[] {
    return this.tensors.filter((tensor) => tensor !== null);
  }

  /** Throws unless projection i, of I columns to O, fits its adapter. */
  check(op: string, i: number, name: string, I: number, O: number, dtype: Tensor['dtype']): void {
    const adapter = this.#adapters[i];
    if (!adapter) return;
    const { a, b } = adapter;
    const [r = 0] = a.shape;
    requireShape(op, `${name} adapter's a`, a, [r, I]);
    requireShape(op, `${name} adapter's b`, b, [O, r]);
    requireDtype(op, `${name} adapter's a`, a, dtype);
    requireDtype(op, `${name} adapter's b`, b, dtype);
  }

  /** Elements of scratch for chunks of M rows of at most `width` columns; null without adapters. See native/ops/low_rank.h. */
  scratch(M: number, width: number, like: Tensor): Tensor | null {
    const rank = Math.max(0, ...this.#adapters.map((adapter) => adapter?.a.shape[0] ?? 0));
    if (rank === 0) return null;
    const size = 2 * M * rank + (this.#mask ? M * width : 0);
    return empty([size], { dtype: like.dtype, device: like.device, category: 'workspace' });
  }

  /** Arguments of a kernel: each projection's adapter. `gradients`: in a backward, with the index of the first a among the inputs. */
  native(gradients?: OpGradients, firstInput = 0): LowRank[] {
    return this.#adapters.map((adapter, i) => {
      if (!adapter) return null;
      const target = (input: number) => {
        const place = gradients?.target(input);
        if (place?.overwrite) kernels.fill(place.gradient, 0);
        return place?.gradient ?? null;
      };
      const { a, b, scale, op } = adapter;
      return [a, b, target(firstInput + 2 * i), target(firstInput + 2 * i + 1), scale, op];
    });
  }

  /** The last arguments: probability, seed, step. */
  get mask(): [number, number, number] {
    return this.#mask ? [this.#mask.probability, this.#mask.seed, this.#mask.step] : [0, 0, 0];
  }
}
