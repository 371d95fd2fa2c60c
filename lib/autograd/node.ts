// An op's description of itself, and the node that the tape records for it.

import { disown, tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { type Destination, type Gradients, hold, OpGradients } from './gradients.ts';
import { Parameter } from './parameter.ts';

/** Tensors by name; null if absent. */
export type Named = Readonly<Record<string, Tensor | null>>;

/** The nodes that a region recorded; see region.ts. */
interface NodesOfRegion {
  readonly nodes: readonly Node[];
  dispose(): void;
}

/** Gradients by the names of inputs. */
type GradientsOf<Inputs extends Named> = Partial<Record<keyof Inputs, Tensor | null>>;

/** How to run one op, forward and backward. */
export interface Operation<Inputs extends Named = Named, Saved extends Named = Named, More extends Named = Named> {
  /** The op's name in errors, as users call it. */
  name: string;
  /** The inputs that gradients may flow to; null if absent. */
  inputs: Inputs;
  /** Tensors whose values `backward` reads, by the names under which it gets them, either kept or recomputed. */
  saved: Saved;
  /**
   * Whether `backward` needs `more`, the tensors that `forward` makes for it. If not, a region may discard them: `backward` then gets null
   * under their names, although the type of `More` does not say so.
   * @default false
   */
  savesMore?: boolean;
  /** Regions that `forward` runs. Parameters used inside may need gradients even if no input does. The node disposes the regions. */
  regions?: readonly NodesOfRegion[];
  /**
   * Computes the output. If `recording`, a backward may follow, and `more` holds what it needs besides `saved`. Otherwise the op may skip
   * whatever only gradients need; a region runs an op with `savesMore` again before its backward.
   */
  forward(recording: boolean): { output: Tensor; more?: More };
  /**
   * dy: gradient of the output. saved: all of `saved` and `more`. Returns gradients by the names of the inputs: each a new tensor, dy itself,
   * or null or left out if there is none or it has been written to `gradients.target(name)`. May dispose dy when it is no longer needed.
   */
  backward(dy: Tensor, saved: Saved & More, gradients: OpGradients<keyof Inputs & string>): GradientsOf<Inputs>;
}

/** One recorded op. It owns what it saves. */
export class Node {
  readonly operation: Operation;
  readonly #destinations: ReadonlyMap<string, Destination>;
  #saved: Named = {};
  #more: Named = {};
  outputId = 0;
  /** The output, if a region keeps it instead of recomputing it. */
  kept: Tensor | null = null;

  constructor(operation: Operation) {
    this.operation = operation;
    const wanted = Object.entries(operation.inputs).filter(([, input]) => input?.requiresGrad) as [string, Tensor][];
    this.#destinations = new Map(wanted.map(([name, input]) => [name, destinationOf(input)]));
  }

  /** How much a region must recompute for this node: each saved input counts 1, and so does `more`. */
  get numMissing(): number {
    const { saved, savesMore } = this.operation;
    return present(saved).length + (savesMore && !this.kept ? 1 : 0);
  }

  save(tensors: Named): void {
    const held = Object.entries(tensors).map(([name, tensor]) => [name, tensor && hold(tensor)]);
    this.#saved = Object.fromEntries(held);
  }

  /** Keeps the output instead of having a region recompute it, with what the op makes for its backward. */
  keep(output: Tensor, more: Named): void {
    this.kept = hold(output);
    this.saveMore(more);
  }

  saveMore(more: Named): void {
    for (const tensor of present(more)) disown(tensor);
    this.#more = more;
  }

  /** The parameters that this node and the nodes of its regions give gradients to, once for each use. */
  *uses(): Generator<Parameter> {
    for (const { parameter } of this.#destinations.values()) if (parameter) yield parameter;
    for (const { nodes } of this.operation.regions ?? []) for (const node of nodes) yield* node.uses();
  }

  backward(gradients: Gradients): void {
    const dy = gradients.take(this.outputId);
    let uses: Parameter[];
    try {
      if (dy) this.#backward(dy, gradients);
      uses = [...this.uses()];
    } finally {
      dy?.dispose();
      this.dispose();
    }
    gradients.finish(uses);
  }

  #backward(dy: Tensor, gradients: Gradients): void {
    tidy(() => {
      const saved = { ...this.#saved, ...this.#more };
      const results = this.operation.backward(dy, saved, new OpGradients(gradients, this.#destinations));
      for (const [name, destination] of this.#destinations) {
        const result = results[name];
        if (result) gradients.add(destination, result);
      }
    });
  }

  dispose(): void {
    for (const tensor of [...present(this.#saved), ...present(this.#more)]) tensor.dispose();
    this.kept?.dispose();
    this.#saved = {};
    this.#more = {};
    this.kept = null;
    for (const region of this.operation.regions ?? []) region.dispose();
  }
}

/** The tensors that are not null. */
export function present(tensors: Named): Tensor[] {
  return Object.values(tensors).filter((tensor) => tensor !== null);
}

function destinationOf(input: Tensor): Destination {
  return { id: input.id, parameter: input instanceof Parameter ? input : null, prototype: input };
}
