// Low-rank adapters (LoRA, arXiv 2106.09685) of linear layers and of the chunked MLP.
import type { OpGradients } from '../autograd/gradients.ts';
import type { MlpAdapters } from '../runtime/kernel_arguments.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireShape } from './check.ts';
import { type DropoutMask, dropout, requireMask } from './dropout.ts';
import { addOnto, scale } from './elementwise.ts';
import { linear } from './linear.ts';
import type { Weight } from './quantized_weight.ts';

type Projection = 'gate' | 'up' | 'down';

/** a and b of an MLP's adapters. */
type AdapterTensors = Record<`${Projection}${'A' | 'B'}`, Tensor | null>;

/** The adapters of an MLP's projections. That of gate has b (2F,r) and is up's too where one weight holds both. */
export type MlpLowRank = Partial<Record<Projection, LowRankAdapter | null>>;

/** A low-rank adapter. It adds scale · (dropout(x)·aᵀ)·bᵀ to x·weightᵀ. */
export interface LowRankAdapter {
  /** (r,I), x's dtype. */
  a: Tensor;
  /** (O,r). */
  b: Tensor;
  scale: number;
  /** Number of its dropout; see dropout(). */
  op: number;
}

/** scale · dropout(x)·aᵀ, (N,r), the input of b. mask null: no dropout. */
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
  weight: Weight,
  bias: Tensor | null,
  adapter: LowRankAdapter,
  mask: DropoutMask | null,
): Tensor {
  const low = lowRankInput(x, adapter, mask);
  const base = linear(x, weight, bias);
  const added = linear(low, adapter.b);
  const y = addOnto(base, added);
  for (const tensor of [low, base, added]) tensor.dispose();
  return y;
}

/** The adapters of an MLP's projections, as chunked_mlp.ts needs them. */
export class OpAdapters {
  readonly #adapters: Record<Projection, LowRankAdapter | null>;
  readonly #dropout: DropoutMask;
  #isFused = false;

  constructor({ gate = null, up = null, down = null }: MlpLowRank = {}, mask: DropoutMask | null = null) {
    this.#adapters = { gate, up, down };
    if (mask) requireMask('adapters', mask);
    this.#dropout = mask ?? { probability: 0, seed: 0, step: 0 };
  }

  /** a and b of every projection, null if it has no adapter. They are inputs of the op, which saves them. */
  get tensors(): AdapterTensors {
    const { gate, up, down } = this.#adapters;
    return {
      gateA: gate?.a ?? null,
      gateB: gate?.b ?? null,
      upA: up?.a ?? null,
      upB: up?.b ?? null,
      downA: down?.a ?? null,
      downB: down?.b ?? null,
    };
  }

  /** Throws unless the adapters fit the MLP. @param sizes isFused: one weight holds gate and up */
  check(op: string, sizes: { C: number; F: number; isFused: boolean; dtype: Tensor['dtype'] }): void {
    const { C, F, isFused, dtype } = sizes;
    if (isFused && this.#adapters.up) throw new RangeError(`${op}: an adapter of up, which the weight of gate holds`);
    for (const [projection, adapter] of Object.entries(this.#adapters)) {
      if (!adapter) continue;
      const [I, O] = projection === 'down' ? [F, C] : [C, isFused ? 2 * F : F];
      const { a, b } = adapter;
      const [r = 0] = a.shape;
      requireShape(op, `${projection} adapter's a`, a, [r, I]);
      requireShape(op, `${projection} adapter's b`, b, [O, r]);
      requireDtype(op, `${projection} adapter's a`, a, dtype);
      requireDtype(op, `${projection} adapter's b`, b, dtype);
    }
    this.#isFused = isFused;
  }

  /**
   * The kernels' argument, without its workspace.
   * @param gradients those of the op, in its backward; null in the forward
   */
  native(
    { gateA, gateB, upA, upB, downA, downB }: AdapterTensors,
    gradients: OpGradients<keyof AdapterTensors> | null = null,
  ): Omit<MlpAdapters, 'scratch'> {
    const target = (input: keyof AdapterTensors) => {
      const place = gradients?.target(input);
      if (place?.overwrite) kernels.fill(place.gradient, 0);
      return place?.gradient ?? null;
    };
    const of = (projection: Projection, a: Tensor | null, b: Tensor | null) => {
      const adapter = this.#adapters[projection];
      if (!adapter || !a || !b) return null;
      const { scale, op } = adapter;
      return { a, b, da: target(`${projection}A`), db: target(`${projection}B`), scale, op };
    };
    const gate = of('gate', gateA, gateB);
    const down = of('down', downA, downB);
    if (this.#isFused && gate) {
      const F = gate.b.shape[0]! / 2;
      const half = (begin: number) => ({
        ...gate,
        b: gate.b.alias().rows(begin, begin + F),
        db: gate.db?.alias().rows(begin, begin + F) ?? null,
      });
      return { gate: half(0), up: half(F), down, dropout: this.#dropout };
    }
    return {
      gate,
      up: of('up', upA, upB),
      down,
      dropout: this.#dropout,
    };
  }

  /** Workspace for chunks of M rows and at most `width` columns; null without adapters. See native/ops/chunked_mlp.h. */
  scratch(M: number, width: number, { dtype, device }: Tensor): Tensor | null {
    const rank = Math.max(0, ...Object.values(this.#adapters).map((adapter) => adapter?.a.shape[0] ?? 0));
    if (rank === 0) return null;
    const size = 2 * M * rank + (this.#dropout.probability > 0 ? M * width : 0);
    return empty([size], { dtype, device, category: 'workspace' });
  }
}
