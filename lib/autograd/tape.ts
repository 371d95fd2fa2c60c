// The tape. An op computes at once and records a node; the backward runs the nodes from last to first and drops each after use.
// A node owns what it saves; nothing waits for the garbage collector. Regions (region.ts) record without saving.

import { tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { Gradients, hold } from './gradients.ts';
import { type Named, Node, type Operation, present } from './node.ts';
import { Parameter } from './parameter.ts';
import { type OnGradient, Uses } from './uses.ts';

/** Of a region that runs again: what the regions inside it keep. */
export interface KeptInside {
  /** Of ops whose outputs are kept. */
  readonly names: ReadonlySet<string>;
  /** The node that the op that runs had the first time, which has the region of that time. */
  node: Node | null;
}

/** How ops that gradients flow through are run. */
export interface Mode {
  /** False if a region is running again. */
  readonly isFirstRun: boolean;
  /** What regions inside keep in this run, which is not their first; see `keepInside` of recompute(). */
  readonly keepsInside?: KeptInside;
  run(op: Operation): Tensor;
}

/** null: ops compute and record nothing. */
let mode: Mode | null = null;

/** Whether a tape is recording a first run: false without a tape, and false if an outer region is running again. */
export function isFirstRun(): boolean {
  return mode?.isFirstRun ?? false;
}

/** What the region of the op that runs keeps, in a run that is not its first; null: nothing. */
export function keptInside(): KeptInside | null {
  return mode?.keepsInside ?? null;
}

/** Runs `fn`, which must be synchronous, in another mode. */
export function withMode<T>(newMode: Mode | null, fn: () => T): T {
  const before = mode;
  mode = newMode;
  try {
    const result = fn();
    if (result instanceof Promise)
      throw new TypeError('tape: the recorded function must be synchronous, but it returned a promise');
    return result;
  } finally {
    mode = before;
  }
}

/** Runs an op. Records a node if a tape is recording and an input needs a gradient. */
export function operation<Inputs extends Named, Saved extends Named, More extends Named = Record<never, never>>(
  op: Operation<Inputs, Saved, More>,
): Tensor {
  const isWanted = op.regions !== undefined || present(op.inputs).some(({ requiresGrad }) => requiresGrad);
  return mode !== null && isWanted ? mode.run(op) : compute(op, false).output;
}

/**
 * Computes and appends a node.
 * @param options.saves whether the node keeps what the op saves
 * @param options.keeps whether the node keeps the output
 */
export function record(
  op: Operation,
  nodes: Node[],
  { saves, keeps = false }: { saves: boolean; keeps?: boolean },
): Tensor {
  const node = new Node(op);
  if (saves) node.save(op.saved);
  try {
    const { output, more } = compute(op, saves || keeps);
    if (keeps) node.kept = hold(output);
    node.saveMore(more);
    node.outputId = output.id;
    output.requiresGrad = true;
    nodes.push(node);
    return output;
  } catch (error) {
    node.dispose();
    throw error;
  }
}

/** Runs an op's forward. Without `recording` it frees the tensors of `more` and returns null under their names. */
export function compute(op: Operation, recording: boolean): { output: Tensor; more: Named } {
  const { output, more = {} } = op.forward(recording);
  if (recording) return { output, more };
  for (const tensor of present(more)) tensor.dispose();
  return { output, more: Object.fromEntries(Object.keys(more).map((name) => [name, null])) };
}

/** Runs the nodes from last to first and drops each after use. */
export function runBackward(nodes: Node[], gradients: Gradients): void {
  for (let node = nodes.pop(); node; node = nodes.pop()) node.backward(gradients);
}

/**
 * Records ops for one backward.
 *
 *     const tape = new Tape();
 *     const loss = tape.run(() => nextTokenLoss(model, batch, { policy }).loss);
 *     tape.backward(loss); // parameters' .grad
 */
export class Tape {
  readonly #nodes: Node[] = [];
  readonly #recording: Mode = { isFirstRun: true, run: (op) => record(op, this.#nodes, { saves: true }) };

  /** Runs the synchronous `fn` and records its ops. Tensors made inside are freed unless the backward needs them or `fn` returns them. */
  run<T>(fn: () => T): T {
    try {
      return tidy(() => withMode(this.#recording, fn));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /**
   * Adds gradients to the `.grad` of parameters, and frees saved tensors as it goes.
   * @param output a scalar, or any tensor if `gradient` is given
   * @param gradient gradient of `output`, of its shape. @default 1
   * @param options.onGradient called once for every parameter that gets a gradient, as soon as `grad` has its final value for this
   *   backward: after the last of the parameter's uses on this tape
   */
  backward(output: Tensor, gradient: Tensor | null = null, { onGradient }: { onGradient?: OnGradient } = {}): void {
    const uses = onGradient
      ? new Uses(
          this.#nodes.flatMap((node) => [...node.uses()]),
          onGradient,
        )
      : null;
    const gradients = new Gradients(uses);
    try {
      if (!gradient && output.size !== 1)
        throw new RangeError(`backward: needs a scalar or a gradient of its shape, got ${output}`);
      if (!output.requiresGrad) throw new Error(`backward: ${output} does not depend on a parameter of this tape`);
      if (gradient) gradients.put(output.id, gradient);
      else gradients.start(output);
      withMode(null, () => runBackward(this.#nodes, gradients));
    } finally {
      gradients.dispose();
      this.dispose();
    }
  }

  /** Frees everything that was saved, without a backward. */
  dispose(): void {
    for (const node of this.#nodes) node.dispose();
    this.#nodes.length = 0;
  }
}

/** Runs `fn` without recording: no gradients, nothing saved. */
export function noGrad<T>(fn: () => T): T {
  return tidy(() => withMode(null, fn));
}

/**
 * Returns a function that computes `fn` and the gradients of its arguments.
 * @param fn takes tensors, returns a scalar tensor; synchronous
 * @returns value, and the gradients of the arguments in the compute dtype; the caller owns both.
 *   Parameters used inside `fn` also get their gradients, in `.grad`.
 */
export function valueAndGrad(
  fn: (...inputs: Tensor[]) => Tensor,
): (...inputs: Tensor[]) => { value: Tensor; gradients: Tensor[] } {
  return (...inputs) =>
    tidy(() => {
      const leaves = inputs.map((input) => new Parameter(input.alias(), { name: input.name }));
      try {
        const tape = new Tape();
        const value = tape.run(() => fn(...leaves));
        tape.backward(value);
        const gradients = leaves.map((leaf) => {
          if (!leaf.grad) throw new Error(`valueAndGrad: the value does not depend on ${leaf}`);
          const { grad } = leaf;
          leaf.grad = null;
          return grad;
        });
        return { value, gradients };
      } finally {
        for (const leaf of leaves) leaf.dispose();
      }
    });
}
