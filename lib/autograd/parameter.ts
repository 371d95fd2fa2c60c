// Parameters: tensors that accumulate gradients.
import { computeDtype, type Dtype, type GradientDtype, gradientDtypeFor } from '../runtime/dtype.ts';
import { Tensor } from '../runtime/tensor.ts';

/** The values in the file of a parameter that was rounded when it was loaded. */
export interface StoredValues {
  /** Elements [begin, end) as f32. */
  read(begin: number, end: number): Promise<Float32Array>;
  /** The same, synchronously. */
  readSync(begin: number, end: number): Float32Array;
}

export interface ParameterOptions {
  /** Used in errors and files. @default none */
  name?: string | null;
  /**
   * Dtype of `grad`: 'float32' (f64 for an f64 parameter), or 'bfloat16' for a bf16 parameter, which takes half the memory. Ops still sum
   * in f32: each rounds its result once, and once more if it adds to an existing `grad`. @default 'float32'
   */
  gradientDtype?: GradientDtype;
}

/**
 * A leaf of the tape: a backward adds its gradient to `grad`. No scope owns a parameter; call `dispose()` to free it.
 *
 *     const weight = new Parameter(zeros([4, 8]), { name: 'weight' });
 */
export class Parameter extends Tensor {
  readonly gradientDtype: Dtype;
  /** Sum of the gradients of all backwards since zeroGrad(); null before the first. */
  grad: Tensor | null = null;
  /** Memory for `grad` that was allocated with the rest of the group and has not been written to. */
  reservedGrad: Tensor | null = null;
  /** Parameters that lie side by side in memory; their gradients do too. */
  group: readonly Parameter[] | null = null;
  /** The unrounded values in its file; null if loading did not round it. */
  stored: StoredValues | null = null;
  /** f32 master copy of a bf16 parameter. The optimizer updates it and rounds it into the parameter. */
  master: Tensor | null = null;
  /** Makes the whole master copy where ranks share it; the caller disposes it. Null: there is `master`, or none. */
  readMaster: (() => Promise<Tensor>) | null = null;

  /** @param tensor the parameter takes over its memory; this handle is disposed */
  constructor(tensor: Tensor, { name = null, gradientDtype }: ParameterOptions = {}) {
    const dtype = gradientDtypeFor(`Parameter ${name ?? tensor}`, tensor.dtype, gradientDtype);
    super(tensor);
    tensor.dispose();
    this.gradientDtype = dtype;
    this.name = name;
    this.requiresGrad = true;
    this.keep();
  }

  /** Frees the gradient, so that the next backward starts from zero. */
  zeroGrad(): void {
    this.grad?.dispose();
    this.reservedGrad?.dispose();
    this.grad = null;
    this.reservedGrad = null;
  }

  override dispose(): void {
    this.zeroGrad();
    super.dispose();
  }
}

/** Dtype of a weight's gradient. The weight is a parameter or was computed from one. */
export function gradientDtypeOf(weight: Tensor): Dtype {
  return weight instanceof Parameter ? weight.gradientDtype : computeDtype(weight.dtype);
}
