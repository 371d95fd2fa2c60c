// Parameters: tensors that gradients are collected for.
import { computeDtype, type Dtype, type GradientDtype, gradientDtypeFor } from '../runtime/dtype.ts';
import { Tensor } from '../runtime/tensor.ts';

/** The file's values of a parameter that was rounded when it was loaded. */
export interface StoredValues {
  /** Elements [begin, end) as f32. */
  read(begin: number, end: number): Promise<Float32Array>;
  /** The same while everything else waits. */
  readSync(begin: number, end: number): Float32Array;
}

export interface ParameterOptions {
  /** In errors and files. @default none */
  name?: string | null;
  /**
   * Of `grad`: 'float32' (f64 for f64), or for a bf16 parameter 'bfloat16', which takes half the memory. Sums are in f32 all the same:
   * an op rounds what it gives once, and once more where it adds to what a `grad` has. @default 'float32'
   */
  gradientDtype?: GradientDtype;
}

/**
 * A leaf that a backward adds gradients to, in `grad`. No scope owns it: `dispose()` ends it.
 *
 *     const weight = new Parameter(zeros([4, 8]), { name: 'weight' });
 */
export class Parameter extends Tensor {
  readonly gradientDtype: Dtype;
  /** Sum of the gradients of all backwards since zeroGrad(); null: none yet. */
  grad: Tensor | null = null;
  /** Memory of `grad` that nothing has been written to yet; see `group`. */
  reservedGrad: Tensor | null = null;
  /** Parameters side by side in memory, whose gradients lie side by side too. */
  group: readonly Parameter[] | null = null;
  /** What it was rounded from; null: it has the values of its file. */
  stored: StoredValues | null = null;
  /** f32 copy of a bf16 parameter, which an optimizer updates; the parameter is its rounded value. */
  master: Tensor | null = null;

  /** @param tensor its memory becomes the parameter's, and this handle on it ends */
  constructor(tensor: Tensor, { name = null, gradientDtype }: ParameterOptions = {}) {
    const dtype = gradientDtypeFor(`Parameter ${name ?? tensor}`, tensor.dtype, gradientDtype);
    super(tensor);
    tensor.dispose();
    this.gradientDtype = dtype;
    this.name = name;
    this.requiresGrad = true;
    this.keep();
  }

  /** Frees the gradient: the next backward begins at zero. */
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

/** What the gradient of a weight is made in: of a parameter, or of what was computed from one. */
export function gradientDtypeOf(weight: Tensor): Dtype {
  return weight instanceof Parameter ? weight.gradientDtype : computeDtype(weight.dtype);
}
