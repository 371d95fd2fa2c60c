// One training step: micro-batches forward and backward, clip, update. The trainer runs it, and so does the planner, on `meta`.
import type { Batch, Decoder, StepPolicy } from '../models/decoder.ts';
import { kernels } from '../native.ts';
import type { AdamW } from '../optim/adamw.ts';
import { type ClippedNorm, clipGradNorm } from '../optim/clip.ts';
import { tidy } from '../scope.ts';
import { Tape } from '../tape.ts';
import { type Tensor, zeros } from '../tensor.ts';

export interface StepOptions {
  policy: StepPolicy;
  learningRate: number;
  /** Clip the global norm of the gradients to this; 0: no clipping. */
  maxGradNorm: number;
  /** Target tokens of all micro-batches that are not ignored: what the losses are divided by. */
  numTargets: number;
}

export interface StepResult extends ClippedNorm {
  /** (): mean loss over the targets of all micro-batches. */
  loss: Tensor;
}

/**
 * The results can be read while the next step runs, and belong to the caller. Gradients are gone when this returns.
 * @param microBatches made when their turn comes, disposed after it; between two of them `stop` is asked
 * @returns null where `stop` said yes, with nothing updated
 */
export function trainStep(
  model: Decoder,
  optimizer: AdamW,
  microBatches: Iterable<() => Batch>,
  options: StepOptions,
  stop: () => boolean = () => false,
): StepResult | null {
  const { policy, learningRate, maxGradNorm, numTargets } = options;
  try {
    return tidy(() => {
      const loss = zeros([], { dtype: model.dtype === 'float64' ? 'float64' : 'float32', device: model.device });
      for (const makeBatch of microBatches) {
        if (stop()) return null;
        tidy(() => {
          const batch = makeBatch();
          const tape = new Tape();
          const part = tape.run(() => model.loss(batch, policy, { divisor: Math.max(numTargets, 1) }).loss);
          tape.backward(part);
          kernels.add_to(part, loss);
        });
      }
      const clipped = clipGradNorm(model.trainableParameters(), maxGradNorm);
      optimizer.step(learningRate, clipped.factor);
      return { loss, ...clipped };
    });
  } finally {
    model.zeroGrad();
  }
}
