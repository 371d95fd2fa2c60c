// Gradients on their way: of values between the ops while a backward is under way, and into the `.grad` of parameters.
import { computeDtype } from './dtype.ts';
import { kernels } from './native.ts';
import { disown } from './scope.ts';
import { empty, emptyGroup, type Tensor } from './tensor.ts';

/** An input as the backward needs it: an id, and the parameter itself where it is one. */
export interface Destination {
  id: number;
  parameter: Tensor | null;
  prototype: Tensor;
}

/** Gradients of values between the ops, while a backward is under way. */
export class Gradients {
  readonly #byId = new Map<number, Tensor>();
  #destinations: readonly (Destination | null)[] = [];

  /** For the op whose backward runs now. */
  enter(destinations: readonly (Destination | null)[]): void {
    this.#destinations = destinations;
  }

  /** Whether input i wants a gradient. */
  needs(i: number): boolean {
    return this.#destinations[i] != null;
  }

  /** Memory for the gradient of input i, a weight, in the compute dtype. `overwrite`: it is new; otherwise the gradient is added. */
  target(i: number): { gradient: Tensor; overwrite: boolean } | null {
    const destination = this.#destinations[i];
    if (!destination) return null;
    const { id, parameter, prototype } = destination;
    if (parameter) {
      const overwrite = parameter.grad === null;
      if (overwrite) allocateGradient(parameter);
      return { gradient: parameter.grad!, overwrite };
    }
    const present = this.#byId.get(id);
    if (present) return { gradient: present, overwrite: false };
    const { shape, dtype, device } = prototype;
    const gradient = empty(shape, { dtype: computeDtype(dtype), device, category: 'activation' });
    disown(gradient);
    this.#byId.set(id, gradient);
    return { gradient, overwrite: true };
  }

  /** Hands the finished gradient of input i over: it becomes a parameter's `.grad` where there is none yet. */
  adopt(i: number, gradient: Tensor): void {
    const destination = this.#destinations[i];
    if (!destination) return;
    const { parameter } = destination;
    if (parameter?.grad === null && !parameter.reservedGrad && !parameter.group) {
      parameter.grad = hold(gradient);
      parameter.grad.name = `gradient of ${parameter.name ?? 'a parameter'}`;
    } else this.add(destination, gradient);
  }

  /** Adds to what there is. Takes `gradient` over, or an alias of it where others use the same memory. */
  add({ id, parameter }: Destination, gradient: Tensor): void {
    if (parameter) {
      if (parameter.grad === null) {
        allocateGradient(parameter);
        kernels.cast(gradient, parameter.grad!);
      } else kernels.add_to(gradient, parameter.grad);
      return;
    }
    this.put(id, gradient);
  }

  put(id: number, gradient: Tensor): void {
    const present = this.#byId.get(id);
    if (!present) {
      const held = hold(gradient);
      held.isOne = gradient.isOne;
      this.#byId.set(id, held);
    } else if (!present.isShared && !present.isOne) kernels.add_to(gradient, present);
    else {
      const sum = empty(present.shape, { dtype: present.dtype, device: present.device, category: 'activation' });
      kernels.add(present, gradient, sum);
      disown(sum);
      present.dispose();
      this.#byId.set(id, sum);
    }
  }

  /** Removes and returns the gradient of a value; the caller disposes it. */
  take(id: number): Tensor | null {
    const gradient = this.#byId.get(id) ?? null;
    this.#byId.delete(id);
    return gradient;
  }

  dispose(): void {
    for (const gradient of this.#byId.values()) gradient.dispose();
    this.#byId.clear();
  }
}

/** A handle that no scope owns. */
export function hold(tensor: Tensor): Tensor {
  const handle = tensor.alias();
  handle.requiresGrad = tensor.requiresGrad;
  disown(handle);
  return handle;
}

/** Gives a parameter its `.grad`, garbage as yet. Members of a group get theirs together, so that these are neighbours as well. */
function allocateGradient(parameter: Tensor): void {
  if (!parameter.reservedGrad) {
    const members = (parameter.group ?? [parameter]).filter((member) => member.requiresGrad && member.grad === null);
    const options = {
      dtype: computeDtype(parameter.dtype),
      device: parameter.device,
      category: 'gradient',
    } as const;
    const gradients = emptyGroup(
      members.map(({ shape }) => shape),
      options,
    );
    members.forEach((member, i) => {
      const gradient = gradients[i]!;
      disown(gradient);
      gradient.name = `gradient of ${member.name ?? 'a parameter'}`;
      member.reservedGrad = gradient;
    });
  }
  parameter.grad = parameter.reservedGrad;
  parameter.reservedGrad = null;
}
