// What an op tells the tape, and the node that the tape keeps of it.

import { disown, tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { type Destination, type Gradients, hold, OpGradients } from './gradients.ts';
import { Parameter } from './parameter.ts';

/** Tensors by name; null: absent. */
export type Named = Readonly<Record<string, Tensor | null>>;

/** What a region leaves on the tape; see region.ts. */
interface NodesOfRegion {
  readonly nodes: readonly Node[];
  dispose(): void;
}

/** What an op's file tells the tape. */
export interface Operation<Inputs extends Named = Named, More extends Named = Named> {
  /** The op's name in errors, as users call it. */
  name: string;
  /** Where gradients go, in the order of what `backward` returns; null: an input that is absent. */
  inputs: readonly (Tensor | null)[];
  /** Inputs whose values the backward reads. It gets them under the same names, as they were or computed again. */
  saved: Inputs;
  /** Whether `forward` makes further tensors for the backward. @default false */
  savesMore?: boolean;
  /** What the forward runs as regions; parameters inside may need gradients although no input does. The node disposes them. */
  regions?: readonly NodesOfRegion[];
  /**
   * Computes. `recording`: a backward may follow, and `more` is what it needs beyond `saved`.
   * Otherwise the op may leave out what only gradients need; a region then runs it again if it has `savesMore`.
   */
  forward(recording: boolean): { output: Tensor; more?: More };
  /**
   * dy: gradient of the output. saved: all of `saved` and `more`. Returns the inputs' gradients: a new tensor, dy itself, or null where
   * there is none or where it has been written to `gradients.target(i)`. It may dispose dy once it needs it no more.
   */
  backward(dy: Tensor, saved: Inputs & More, gradients: OpGradients): readonly (Tensor | null)[];
}

/** One recorded op. It owns what it saves. */
export class Node {
  readonly operation: Operation;
  readonly #destinations: readonly (Destination | null)[];
  #saved: Named = {};
  #more: Named = {};
  outputId = 0;
  /** The output, where a region keeps it instead of computing it again. */
  kept: Tensor | null = null;

  constructor(operation: Operation) {
    this.operation = operation;
    this.#destinations = operation.inputs.map((input) =>
      input?.requiresGrad
        ? { id: input.id, parameter: input instanceof Parameter ? input : null, prototype: input }
        : null,
    );
  }

  /** Number of tensors that a region which runs again has to bring back. */
  get numMissing(): number {
    const { saved, savesMore } = this.operation;
    return present(saved).length + (savesMore && !this.kept ? 1 : 0);
  }

  save(tensors: Named): void {
    const held = Object.entries(tensors).map(([name, tensor]) => [name, tensor && hold(tensor)]);
    this.#saved = Object.fromEntries(held);
  }

  saveMore(more: Named): void {
    for (const tensor of present(more)) disown(tensor);
    this.#more = more;
  }

  /** The parameters that it gives gradients, and what is left of its regions, each as often as it is used. */
  *uses(): Generator<Parameter> {
    for (const destination of this.#destinations) if (destination?.parameter) yield destination.parameter;
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
      results.forEach((result, i) => {
        const destination = this.#destinations[i];
        if (result && destination) gradients.add(destination, result);
      });
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

/** Those that are there. */
export function present(tensors: Named): Tensor[] {
  return Object.values(tensors).filter((tensor) => tensor !== null);
}
