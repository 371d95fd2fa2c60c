// Regions of the tape that keep only their inputs. A region's function runs once without saving, and again in the backward, up to the last
// op that saves something. `recompute` makes one region, `miniSequence` (ops/mini_sequence.ts) one for each chunk.

import { own, tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import type { OpGradients } from './gradients.ts';
import { type Named, type Node, type Operation, present } from './node.ts';
import {
  compute,
  isFirstRun,
  type KeptInside,
  keptInside,
  type Mode,
  noGrad,
  operation,
  record,
  runBackward,
  withMode,
} from './tape.ts';

/**
 * The second run of a region's function, in the backward. It recomputes what the nodes of the first run did not save, and then stops.
 *
 * It stops the function with an exception, because nothing else stops everything: the rest of the function could still spend memory and
 * time outside of recorded ops (constants, noGrad). User code may catch the exception; every later op then throws it again, and what the
 * function returns or throws is ignored.
 */
class Replay implements Mode {
  readonly isFirstRun = false;
  readonly keepsInside: KeptInside;
  readonly #nodes: readonly Node[];
  #next = 0;
  #numMissing: number;

  constructor(nodes: readonly Node[], names: ReadonlySet<string>) {
    this.keepsInside = { names, node: null };
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
    const node = repeated(this.#nodes, this.#next++, op);
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
    this.keepsInside.node = node;
    const { output, more } = compute(op, true);
    node.saveMore(more);
    if (op.savesMore) this.#numMissing -= 1;
    return output;
  }
}

/** Thrown by ops of a second run once it has recomputed everything that the backward needs. */
class ReplayComplete extends Error {
  override readonly message =
    'recompute: everything that the backward needs has been recomputed; the rest of the function does not run';
}

/**
 * A run of a region's function between the first and the one before the backward, while a region around it runs again. The nodes of the
 * first run keep the outputs of the named ops from here on, with what these ops make for their backward.
 */
class KeepingRun implements Mode {
  readonly isFirstRun = false;
  readonly keepsInside: KeptInside;
  readonly #nodes: readonly Node[];
  #next = 0;

  constructor(nodes: readonly Node[], names: ReadonlySet<string>) {
    this.keepsInside = { names, node: null };
    this.#nodes = nodes;
  }

  run(op: Operation): Tensor {
    const node = repeated(this.#nodes, this.#next++, op);
    const output = node.kept?.alias() ?? this.#output(op, node);
    output.requiresGrad = true;
    return output;
  }

  #output(op: Operation, node: Node): Tensor {
    const keeps = this.keepsInside.names.has(op.name);
    this.keepsInside.node = node;
    const { output, more } = compute(op, keeps);
    if (keeps) node.keep(output, more);
    return output;
  }
}

/** The node of the op that ran at this place the first time. */
function repeated(nodes: readonly Node[], index: number, { name }: Operation): Node {
  const node = nodes[index];
  if (node?.operation.name === name) return node;
  throw new Error(
    `recompute: ${name} ran where ${node?.operation.name ?? 'nothing'} ran the first time; the function must repeat its ops`,
  );
}

/** One region: the nodes that its ops recorded in the first run, and the function that recomputes what they did not save. */
export class Region {
  readonly #fn: (...inputs: Tensor[]) => Tensor;
  readonly #keep: ReadonlySet<string>;
  readonly #keepInside: ReadonlySet<string>;
  readonly nodes: Node[] = [];
  readonly #firstRun: Mode = {
    isFirstRun: true,
    run: (op) => record(op, this.nodes, { saves: false, keeps: this.#keep.has(op.name) }),
  };
  #inputIds: number[] = [];
  #outputId = 0;

  /** @param options see recompute() */
  constructor(
    fn: (...inputs: Tensor[]) => Tensor,
    { keep = [], keepInside = [] }: { keep?: readonly string[]; keepInside?: readonly string[] } = {},
  ) {
    this.#fn = fn;
    this.#keep = new Set(keep);
    this.#keepInside = new Set(keepInside);
  }

  /** The first run: computes and records, but saves nothing. */
  run(inputs: readonly Tensor[]): Tensor {
    return tidy(() => {
      const local = localInputs(inputs);
      this.#inputIds = local.map(({ id }) => id);
      const output = withMode(this.#firstRun, () => this.#fn(...local));
      this.#outputId = output.id;
      return output;
    });
  }

  /** Runs the function again, while a region around this one does so, for its output; keeps what that one's `keepInside` says. */
  runAgain(inputs: readonly Tensor[]): Tensor {
    const { names, node } = keptInside() ?? {};
    const first = node?.operation.regions?.[0];
    if (!first || !names?.size) return noGrad(() => this.#fn(...inputs));
    return tidy(() => withMode(new KeepingRun(first.nodes, names), () => this.#fn(...localInputs(inputs))));
  }

  /**
   * Recomputes what the backward needs and runs it. Returns the gradients of the inputs.
   * @param options.takesDy disposes dy at once, so that nodes inside may overwrite or free it long before the region ends
   * @param options.onto gradients of the inputs so far, which are added to and returned; disposed
   */
  backward(
    inputs: readonly Tensor[],
    dy: Tensor,
    { all }: OpGradients,
    { takesDy = false, onto = [] }: { takesDy?: boolean; onto?: readonly (Tensor | null)[] } = {},
  ): (Tensor | null)[] {
    this.#replay(inputs);
    for (const [i, gradient] of onto.entries()) {
      if (!gradient) continue;
      all.put(this.#inputIds[i]!, gradient);
      gradient.dispose();
    }
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
    const replay = new Replay(this.nodes, this.#keepInside);
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

/** Where a region's inputs are between its two runs, if its node does not keep them. */
export interface InputStore {
  /** Before the first run. */
  put(inputs: readonly Tensor[]): void;
  /** The same values, for the second run; they live until dispose(). */
  take(): readonly Tensor[];
  /** After the backward, or instead of it. */
  dispose(): void;
}

/**
 * Runs `fn` and keeps only its inputs. The backward runs `fn` again to recompute the rest, and stops it once every tensor that an op
 * inside saves exists again: a last op that saves only its inputs does not run twice.
 * @param fn synchronous; when called again with the same inputs, it must run the same ops
 * @param inputs tensors of `fn` that gradients flow to; parameters may be used inside without being listed
 * @param options.keep names of ops ('attention') whose outputs are kept instead of recomputed, with what these ops make for their backward.
 *   A kept op that is itself a region keeps its own `keep`
 * @param options.keepInside names of ops inside the regions in `fn` whose outputs these keep once `fn` has run again for the backward,
 *   until their own backward, which then does not run these ops again
 * @param options.name name of this op, for the `keep` of an outer region. @default 'recompute'
 * @param options.store of this region alone: takes the inputs instead of the region's node. @default null
 */
export function recompute(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: { keep?: readonly string[]; keepInside?: readonly string[]; name?: string; store?: InputStore | null } = {},
): Tensor {
  const { store = null } = options;
  const region = new Region(fn, options);
  const firstRun = () => {
    store?.put(inputs);
    return region.run(inputs);
  };
  const byIndex: Named = Object.fromEntries(inputs.entries());
  return operation({
    name: options.name ?? 'recompute',
    inputs: byIndex,
    saved: store ? {} : byIndex,
    regions: store ? [region, { nodes: [], dispose: () => store.dispose() }] : [region],
    forward: () => ({ output: isFirstRun() ? firstRun() : region.runAgain(inputs) }),
    backward(dy, saved, gradients) {
      const results = region.backward(store?.take() ?? present(saved), dy, gradients, { takesDy: true });
      return Object.fromEntries(results.entries());
    },
  });
}

/** Aliases of the inputs, whose ids are local to the region: its gradients stay apart from those of the same tensors outside. */
function localInputs(inputs: readonly Tensor[]): Tensor[] {
  return inputs.map((input) => {
    const local = input.alias();
    local.requiresGrad = input.requiresGrad;
    return local;
  });
}
