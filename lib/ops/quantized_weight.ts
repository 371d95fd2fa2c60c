// Frozen weights in 4 bits beside tensors: ops that multiply by a weight take either, and dequantise inside.
import type { Device } from '../runtime/device.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { checkShape, sizeOf } from '../runtime/shape.ts';
import { emptyGroup, Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireOneDevice, requireShape } from './check.ts';
import { emptyNf4, type Nf4Tensors, quantizeNf4Into } from './nf4.ts';

/** A weight of a product: a tensor, or a frozen one in 4 bits. */
export type Weight = Tensor | QuantizedWeight;

/**
 * A weight (O,I) in NF4 with double quantisation; see nf4.ts. No gradient flows to it. An op that takes it brings it back to `dtype` in
 * workspace, once for each forward and once for each backward. No scope owns it; call `dispose()` to free it. The tape does not hold it
 * either: dispose of it after the backward.
 */
export class QuantizedWeight {
  readonly shape: readonly number[];
  /** Of the values that ops compute with: f32, bf16 or f64. */
  readonly dtype: Dtype;
  readonly device: Device;
  name: string | null;
  /** Uninitialised until `quantize`, or until they are written. */
  readonly tensors: Nf4Tensors;

  constructor(
    shape: readonly number[],
    { dtype, device, name = null }: { dtype: Dtype; device: Device; name?: string | null },
  ) {
    this.shape = checkShape('QuantizedWeight', shape);
    this.dtype = dtype;
    this.device = device;
    this.name = name;
    this.tensors = emptyNf4(this.size, device);
    for (const tensor of Object.values(this.tensors)) tensor.keep();
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Overwrites it with x in 4 bits. @param x of its shape, float */
  quantize(x: Tensor): void {
    requireOneDevice('QuantizedWeight', { x, weight: this });
    requireShape('QuantizedWeight', 'x', x, this.shape);
    quantizeNf4Into(x, this.tensors);
  }

  /** Writes what it stands for into y, rounded once to y's dtype. @param y of its shape */
  dequantizeInto(y: Tensor): void {
    requireOneDevice('QuantizedWeight', { y, weight: this });
    requireShape('QuantizedWeight', 'y', y, this.shape);
    kernels.nf4_dequantize({ ...this.tensors }, y);
  }

  dispose(): void {
    for (const tensor of Object.values(this.tensors)) tensor.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.name ?? 'weight'} nf4(${this.shape.join(',')})`;
  }
}

/** The weight as an input of an op that gradients may flow to: null if it is in 4 bits. */
export function trainable(weight: Weight): Tensor | null {
  return weight instanceof Tensor ? weight : null;
}

/** A weight's values: itself, or workspace of the current scope. */
export function dense(weight: Weight): Tensor {
  return denseGroup([weight])[0]!;
}

/** The same for several of one dtype; those in 4 bits come to lie side by side. */
export function denseGroup(weights: readonly Weight[]): Tensor[] {
  const quantized = weights.filter((weight) => weight instanceof QuantizedWeight);
  const [first] = quantized;
  if (!first) return weights as Tensor[];
  const { dtype, device } = first;
  const group = emptyGroup(
    quantized.map(({ shape }) => shape),
    { dtype, device, category: 'workspace' },
  );
  return weights.map((weight) => {
    if (weight instanceof Tensor) return weight;
    const values = group[quantized.indexOf(weight)]!;
    weight.dequantizeInto(values);
    return values;
  });
}

/** x in 4 bits, as a weight of x's dtype. @param x (O,I), float */
export function quantizeWeight(x: Tensor): QuantizedWeight {
  requireDtype('quantizeWeight', 'x', x, 'float32', 'bfloat16', 'float64');
  const weight = new QuantizedWeight(x.shape, { dtype: x.dtype, device: x.device, name: x.name });
  try {
    weight.quantize(x);
    return weight;
  } catch (error) {
    weight.dispose();
    throw error;
  }
}
