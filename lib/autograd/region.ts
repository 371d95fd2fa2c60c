// Regions of the tape that keep only their inputs: a function runs once without saving, and again in the backward, up to the op that
// saves last. `recompute` makes one region, `miniSequence` (ops/mini_sequence.ts) one a chunk.

import { own, tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import type { OpGradients } from './gradients.ts';
import { type Node, type Operation, present } from './node.ts';
import { compute, isFirstRun, type Mode, noGrad, operation, record, runBackward, withMode } from './tape.ts';

/**
 * The function's run in the backward: fills what the nodes of its first run did not save, and ends it once all of that exists.
 *
 * An exception ends it, since only that stops everything: what the rest of the function makes outside of recorded ops (constants, noGrad,
 * tensors that it keeps for itself) would take memory and time, or, made without memory, be met later by code that reads it. User code may
 * catch the exception; from then on every op throws it, and whatever the function returns or throws is of no account.
 */
class Replay implements Mode {
  readonly isFirstRun = false;
  readonly #nodes: readonly Node[];
  #next = 0;
  #numMissing: number;

  constructor(nodes: readonly Node[]) {
    this.#nodes = nodes;
    this.#numMissing = nodes.reduce((sum, { numMissing }) => sum + numMissing, 0);
  }

  get isComplete(): boolean {
    return this.#numMissing === 0;
  }
  get numOps(): number {
    return this.#next;
  }

  run(op: Operation): Tensor {
    if (this.isComplete) throw new ReplayComplete();
    const node = this.#nodes[this.#next];
    if (node?.operation.name !== op.name) {
      throw new Error(
        `recompute: ${op.name} ran where ${node?.operation.name ?? 'nothing'} ran the first time; the function must repeat its ops`,
      );
    }
    this.#next += 1;
    node.save(op.saved);
    this.#numMissing -= present(op.saved).length;
    const output = this.#output(op, node);
    if (this.isComplete) throw new ReplayComplete();
    output.requiresGrad = true;
    return output;
  }

  #output(op: Operation, node: Node): Tensor {
    if (node.kept) return node.kept.alias();
    if (this.isComplete) throw new ReplayComplete();
    const { output, more } = compute(op, true);
    node.saveMore(more);
    if (op.savesMore) this.#numMissing -= 1;
    return output;
  }
}

/** Thrown through a function that runs again, once everything that was not saved exists again. */
class ReplayComplete extends Error {
  override readonly message =
    'recompute: everything that the backward needs exists again, the rest of the function does not run';
}

/** One region: what its ops left on the tape the first time, and how to bring back what they did not save. */
export class Region {
  readonly #fn: (...inputs: Tensor[]) => Tensor;
  readonly #keep: ReadonlySet<string>;
  readonly nodes: Node[] = [];
  readonly #firstRun: Mode = {
    isFirstRun: true,
    run: (op) => record(op, this.nodes, { saves: false, keeps: this.#keep.has(op.name) }),
  };
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
      const output = withMode(this.#firstRun, () => this.#fn(...local));
      this.#outputId = output.id;
      return output;
    });
  }

  /**
   * Computes again what the backward needs, and goes through it. Returns the inputs' gradients.
   * @param options.takesDy whether dy is disposed, so that nodes inside may overwrite or free it long before the region ends
   */
  backward(inputs: readonly Tensor[], dy: Tensor, { all }: OpGradients, { takesDy = false } = {}): (Tensor | null)[] {
    this.#replay(inputs);
    all.put(this.#outputId, dy);
    if (takesDy) dy.dispose();
    runBackward(this.nodes, all);
    return this.#inputIds.map((id) => {
      const gradient = all.take(id);
      if (gradient) own(gradient);
      return gradient;
    });
  }

  #replay(inputs: readonly Tensor[]): void {
    const replay = new Replay(this.nodes);
    if (replay.isComplete) return;
    tidy(() => {
      try {
        withMode(replay, () => this.#fn(...localInputs(inputs)));
      } catch (error) {
        if (!replay.isComplete) throw error;
      }
    });
    if (!replay.isComplete) {
      throw new Error(
        `recompute: the function ran ${replay.numOps} ops where ${this.nodes.length} ran the first time; it must repeat its ops`,
      );
    }
  }

  dispose(): void {
    for (const node of this.nodes) node.dispose();
    this.nodes.length = 0;
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
    saved: Object.fromEntries(inputs.entries()),
    regions: [region],
    forward: () => ({ output: isFirstRun() ? region.run(inputs) : noGrad(() => fn(...inputs)) }),
    backward: (dy, saved, gradients) => region.backward(Object.values(saved), dy, gradients, { takesDy: true }),
  });
}

/** The inputs as the region's own values, so that their gradients are told from the same tensors' outside. */
function localInputs(inputs: readonly Tensor[]): Tensor[] {
  return inputs.map((input) => {
    const local = input.alias();
    local.requiresGrad = input.requiresGrad;
    return local;
  });
}
