// The tape: ops compute at once and leave a node for the backward, which runs the nodes last to first and drops each after use.
// A node owns what it saves; nothing waits for the garbage collector. Regions (region.ts) record without saving.

import { kernels } from '../runtime/native.ts';
import { disown, tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { type Destination, Gradients, hold } from './gradients.ts';

/** What an op's file tells the tape. */
export interface Operation {
  /** The op's name in errors, as users call it. */
  name: string;
  /** Where gradients go, in the order of what `backward` returns; null: an input that is absent. */
  inputs: readonly (Tensor | null)[];
  /** Inputs whose values the backward reads. Given to it as they were, or computed again. */
  saved: readonly Tensor[];
  /** Whether `forward` makes further tensors for the backward. @default false */
  savesMore?: boolean;
  /** Whether parameters inside may need gradients although no input does (regions). @default false */
  isRegion?: boolean;
  /**
   * Computes. `recording`: a backward may follow, and `more` is what it needs beyond `saved`.
   * Otherwise the op may leave out what only gradients need.
   */
  forward(recording: boolean): { output: Tensor; more?: readonly Tensor[] };
  /**
   * dy: gradient of the output. Returns the inputs' gradients: a new tensor, dy itself, or null where there is none or where it has been
   * written to `gradients.target(i)`.
   */
  backward(dy: Tensor, saved: readonly Tensor[], gradients: Gradients): readonly (Tensor | null)[];
  /** Frees what the op itself holds. */
  dispose?(): void;
}

/** One recorded op. */
export class Node {
  readonly operation: Operation;
  readonly #destinations: (Destination | null)[];
  outputId = 0;
  saved: Tensor[] = [];
  more: Tensor[] = [];
  /** The output, where a region keeps it instead of computing it again. */
  kept: Tensor | null = null;

  constructor(operation: Operation) {
    this.operation = operation;
    this.#destinations = operation.inputs.map((input) =>
      input?.requiresGrad ? { id: input.id, parameter: input.isParameter ? input : null, prototype: input } : null,
    );
  }

  save(tensors: readonly Tensor[]): void {
    this.saved = tensors.map(hold);
  }

  finish(output: Tensor, more: readonly Tensor[] = []): Tensor {
    for (const tensor of more) disown(tensor);
    this.more = [...more];
    this.outputId = output.id;
    output.requiresGrad = true;
    return output;
  }

  backward(gradients: Gradients): void {
    const dy = gradients.take(this.outputId);
    try {
      if (!dy) return;
      tidy(() => {
        gradients.enter(this.#destinations);
        const results = this.operation.backward(dy, [...this.saved, ...this.more], gradients);
        results.forEach((result, i) => {
          const destination = this.#destinations[i];
          if (result && destination) gradients.add(destination, result);
        });
      });
    } finally {
      dy?.dispose();
      this.dispose();
    }
  }

  dispose(): void {
    for (const tensor of [...this.saved, ...this.more]) tensor.dispose();
    this.kept?.dispose();
    this.saved = [];
    this.more = [];
    this.kept = null;
    this.operation.dispose?.();
  }
}

/** What ops do with their nodes: nothing (null), record and save, record without saving, or fill what was not saved. */
export type Mode =
  | null
  | { kind: 'record'; nodes: Node[] }
  | { kind: 'first'; nodes: Node[]; keep: ReadonlySet<string> }
  | { kind: 'replay'; nodes: readonly Node[]; next: number; missing: number };

let mode: Mode = null;

/** The mode that ops run in now. */
export function currentMode(): Mode {
  return mode;
}

/** Runs `fn`, which must be synchronous, in another mode. */
export function withMode<T>(newMode: Mode, fn: () => T): T {
  const before = mode;
  mode = newMode;
  try {
    const result = fn();
    if (result instanceof Promise)
      throw new TypeError('tape: the recorded function must be synchronous, it returned a promise');
    return result;
  } finally {
    mode = before;
  }
}

/** Thrown through a function that is computed again, once everything that was not saved exists again. */
export class ReplayComplete extends Error {}

/** Runs an op and leaves its node on the tape, where one is recording and an input wants gradients. */
export function operation(op: Operation): Tensor {
  if (mode !== null) for (const input of op.inputs) if (input) requireUncut(op.name, input);
  const wanted = mode !== null && (op.isRegion || op.inputs.some((input) => input?.requiresGrad));
  if (!wanted) return compute(op, false).output;
  if (mode!.kind === 'replay') return replay(op, mode as Extract<Mode, { kind: 'replay' }>);
  const { nodes } = mode as Exclude<Mode, null | { kind: 'replay' }>;
  const node = new Node(op);
  const keeps = mode!.kind === 'first' && mode!.keep.has(op.name);
  if (mode!.kind === 'record') node.save(op.saved);
  try {
    const recording = mode!.kind === 'record' || keeps;
    const { output, more } = compute(op, recording);
    if (keeps) node.kept = hold(output);
    node.finish(output, more);
    nodes.push(node);
    return output;
  } catch (error) {
    node.dispose();
    throw error;
  }
}

/** Throws where a gradient would be lost without a word. */
function requireUncut(op: string, input: Tensor): void {
  if (!input.cutsGradients || input.requiresGrad) return;
  throw new Error(
    `${op}: ${input} is a view, by rows() or reshape(), of a tensor that gradients flow to, and none flows through a view. ` +
      'The ops reshape(x, shape) and rows(x, begin, end) make views that gradients flow through; a view of x.alias() is a constant',
  );
}

/** Number of tensors that a replay has to bring back for these nodes. */
export function countMissing(nodes: readonly Node[]): number {
  return nodes.reduce(
    (sum, { operation: { saved, savesMore }, kept }) => sum + saved.length + (savesMore && !kept ? 1 : 0),
    0,
  );
}

function replay(op: Operation, run: Extract<Mode, { kind: 'replay' }>): Tensor {
  const node = run.nodes[run.next];
  if (node?.operation.name !== op.name) {
    throw new Error(
      `recompute: ${op.name} ran where ${node?.operation.name ?? 'nothing'} ran the first time; the function must repeat its ops`,
    );
  }
  run.next += 1;
  node.save(op.saved);
  run.missing -= op.saved.length;
  let output: Tensor;
  if (node.kept) output = node.kept.alias();
  else {
    if (run.missing === 0) throw new ReplayComplete();
    const result = compute(op, true);
    output = result.output;
    for (const tensor of result.more ?? []) disown(tensor);
    node.more = [...(result.more ?? [])];
    if (op.savesMore) run.missing -= 1;
  }
  if (run.missing === 0) throw new ReplayComplete();
  output.requiresGrad = true;
  return output;
}

function compute(op: Operation, recording: boolean): { output: Tensor; more?: readonly Tensor[] } {
  const result = op.forward(recording);
  if (recording) return result;
  for (const tensor of result.more ?? []) tensor.dispose();
  return { output: result.output };
}

/** The gradient of a scalar by itself. */
function ones({ shape, dtype, device }: Tensor): Tensor {
  const one = empty(shape, { dtype, device, category: 'activation' });
  kernels.fill(one, 1);
  one.isOne = true;
  return one;
}

/** Runs nodes last to first; each is dropped after use. */
export function runBackward(nodes: Node[], gradients: Gradients): void {
  for (let node = nodes.pop(); node; node = nodes.pop()) node.backward(gradients);
}

/**
 * Records ops for one backward.
 *
 *     const tape = new Tape();
 *     const loss = tape.run(() => model.loss(batch));
 *     tape.backward(loss); // parameters' .grad
 */
export class Tape {
  readonly #nodes: Node[] = [];

  /** Runs `fn` (synchronous) and records its ops. Tensors made inside are freed unless the backward needs them or `fn` returns them. */
  run<T>(fn: () => T): T {
    try {
      return tidy(() => withMode({ kind: 'record', nodes: this.#nodes }, fn));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /**
   * Adds gradients to the `.grad` of parameters; what was saved is freed on the way.
   * @param output a scalar, or any output with `gradient` of its shape
   * @param gradient what the backward begins with. @default 1
   */
  backward(output: Tensor, gradient: Tensor | null = null): void {
    const gradients = new Gradients();
    try {
      if (!gradient && output.size !== 1)
        throw new RangeError(`backward: needs a scalar or a gradient of its shape, got ${output}`);
      if (!output.requiresGrad) throw new Error(`backward: ${output} does not depend on a parameter of this tape`);
      tidy(() => gradients.put(output.id, gradient ?? ones(output)));
      withMode(null, () => runBackward(this.#nodes, gradients));
    } finally {
      gradients.dispose();
      this.dispose();
    }
  }

  /** Frees what is saved, without a backward. */
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
 * A function that computes `fn` and the gradients of its tensors.
 * @param fn takes tensors, returns a scalar tensor; synchronous
 * @returns value, and the gradients of the arguments in the compute dtype; both belong to the caller.
 *   Parameters used inside get their gradients added to `.grad` as well.
 */
export function valueAndGrad(
  fn: (...inputs: Tensor[]) => Tensor,
): (...inputs: Tensor[]) => { value: Tensor; gradients: Tensor[] } {
  return (...inputs) =>
    tidy(() => {
      const leaves = inputs.map((input) => input.alias().asParameter(input.name));
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
