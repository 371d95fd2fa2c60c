// Regions of the tape that keep only their inputs: a function runs once without saving, and again in the backward, up to the op that
// saves last. `recompute` makes one region, `miniSequence` (ops/mini_sequence.ts) one a chunk.

import { own, tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import type { Gradients } from './gradients.ts';
import {
  countMissing,
  currentMode,
  type Node,
  noGrad,
  operation,
  ReplayComplete,
  runBackward,
  withMode,
} from './tape.ts';

/** One region: what its ops left on the tape the first time, and how to bring back what they did not save. */
export class Region {
  readonly #fn: (...inputs: Tensor[]) => Tensor;
  readonly #keep: ReadonlySet<string>;
  readonly #nodes: Node[] = [];
  #inputIds: number[] = [];
  #outputId = 0;

  constructor(fn: (...inputs: Tensor[]) => Tensor, keep: readonly string[] = []) {
    this.#fn = fn;
    this.#keep = new Set(keep);
  }

  /** The first run: computes, and records without saving. */
  run(inputs: readonly Tensor[]): Tensor {
    return tidy(() => {
      const local = localInputs(inputs);
      this.#inputIds = local.map(({ id }) => id);
      const output = withMode({ kind: 'first', nodes: this.#nodes, keep: this.#keep }, () => this.#fn(...local));
      this.#outputId = output.id;
      return output;
    });
  }

  /** Computes again what the backward needs, and goes through it. Returns the inputs' gradients. */
  backward(inputs: readonly Tensor[], dy: Tensor, gradients: Gradients): (Tensor | null)[] {
    const missing = countMissing(this.#nodes);
    if (missing > 0) {
      tidy(() => {
        try {
          withMode({ kind: 'replay', nodes: this.#nodes, next: 0, missing }, () => {
            this.#fn(...localInputs(inputs));
          });
        } catch (error) {
          if (!(error instanceof ReplayComplete)) throw error;
        }
      });
    }
    gradients.put(this.#outputId, dy);
    runBackward(this.#nodes, gradients);
    return this.#inputIds.map((id) => {
      const gradient = gradients.take(id);
      if (gradient) own(gradient);
      return gradient;
    });
  }

  dispose(): void {
    for (const node of this.#nodes) node.dispose();
    this.#nodes.length = 0;
  }
}

/**
 * Runs `fn` now, keeps only its inputs, and computes the rest again in the backward, stopping when the last tensor that an op inside
 * saves exists again: an op at the end that saves its inputs alone is not run twice.
 * @param fn synchronous; called again with the same inputs, must repeat its ops
 * @param inputs tensors of `fn` that gradients flow to; parameters may be used inside without being listed
 * @param options.keep names of ops ('attention') whose output is kept and not computed again
 */
export function recompute(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: { keep?: readonly string[] } = {},
): Tensor {
  const region = new Region(fn, options.keep);
  return operation({
    name: 'recompute',
    inputs,
    saved: inputs,
    isRegion: true,
    forward: () => ({ output: isFirstRun() ? region.run(inputs) : noGrad(() => fn(...inputs)) }),
    backward: (dy, saved, gradients) => region.backward(saved, dy, gradients),
    dispose: () => region.dispose(),
  });
}

/** Whether a tape records what runs now for the first time: not where none records, nor where an outer region runs again. */
export function isFirstRun(): boolean {
  const mode = currentMode();
  return mode !== null && mode.kind !== 'replay';
}

/** The inputs as the region's own values, so that their gradients are told from the same tensors' outside. */
function localInputs(inputs: readonly Tensor[]): Tensor[] {
  return inputs.map((input) => {
    const local = input.alias();
    local.requiresGrad = input.requiresGrad;
    return local;
  });
}
