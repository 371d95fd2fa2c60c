// Gradients on their way: of values between the ops while a backward is under way, and into the `.grad` of parameters.
import { computeDtype, type Dtype } from '../runtime/dtype.ts';
import type { Category } from '../runtime/memory/statistics.ts';
import { kernels } from '../runtime/native.ts';
import { disown, tidy } from '../runtime/scope.ts';
import { empty, emptyGroup, type Tensor } from '../runtime/tensor.ts';
import type { Parameter } from './parameter.ts';
import type { Uses } from './uses.ts';

/** An input as the backward needs it: an id, and the parameter itself where it is one. */
export interface Destination {
  id: number;
  parameter: Parameter | null;
  prototype: Tensor;
}

/** Memory for a weight's gradient. */
interface GradientMemory {
  gradient: Tensor;
  /** It is new; otherwise the gradient is added to what it has. */
  overwrite: boolean;
}

/** What the chunks of an op add up. */
interface Sums {
  /** f32 memory of bf16 gradients; isNew: true until the first write. */
  byParameter: Map<Parameter, { memory: Tensor; isNew: boolean }>;
  /** Parameters whose gradient is complete once the sums are in it. */
  complete: Parameter[];
}

/** All gradients of a backward under way: those of values between the ops, by id, and the way into those of parameters. */
export class Gradients {
  readonly #byId: Map<number, Tensor>;
  readonly #uses: Uses | null;
  readonly #sums: Sums | null;

  /** @param uses of parameters, where somebody wants to know when a gradient is complete */
  constructor(uses: Uses | null, byId: Map<number, Tensor> = new Map(), sums: Sums | null = null) {
    this.#uses = uses;
    this.#byId = byId;
    this.#sums = sums;
  }

  /** Tells that nodes have given parameters what they give, once for each use. */
  finish(parameters: readonly Parameter[]): void {
    if (!this.#uses) return;
    const complete = this.#uses.takeAway(parameters);
    if (this.#sums) this.#sums.complete.push(...complete);
    else this.#uses.tell(complete);
  }

  /** See OpGradients. */
  overChunks(numChunks: number, fn: (gradients: Gradients) => void): void {
    if (numChunks === 1 || this.#sums) {
      fn(this); // one chunk, or inside an op that sums already
      return;
    }
    const { byParameter, complete }: Sums = { byParameter: new Map(), complete: [] };
    try {
      // workspaces are gone before the gradients come
      tidy(() => fn(new Gradients(this.#uses, this.#byId, { byParameter, complete })));
      for (const [parameter, { memory, isNew }] of byParameter) if (!isNew) addTo(targetOf(parameter), memory);
    } finally {
      for (const { memory } of byParameter.values()) memory.dispose();
    }
    this.#uses?.tell(complete);
  }

  /** Memory for a weight's gradient. */
  target({ id, parameter, prototype }: Destination): GradientMemory {
    if (parameter) return this.#ofParameter(parameter);
    const present = this.#byId.get(id);
    if (present) return { gradient: present, overwrite: false };
    const { shape, dtype, device } = prototype;
    const gradient = empty(shape, { dtype: computeDtype(dtype), device, category: 'activation' });
    disown(gradient);
    this.#byId.set(id, gradient);
    return { gradient, overwrite: true };
  }

  /** Hands a finished gradient over: it becomes a parameter's `.grad` where there is none yet. */
  adopt(destination: Destination, gradient: Tensor): void {
    const { parameter } = destination;
    const fits = gradient.dtype === parameter?.gradientDtype && !this.#sums;
    if (fits && parameter.grad === null && !parameter.reservedGrad && !parameter.group) {
      parameter.grad = hold(gradient);
      parameter.grad.name = `gradient of ${parameter.name ?? 'a parameter'}`;
    } else this.add(destination, gradient);
  }

  /** Adds to what there is. Takes `gradient` over, or an alias of it where others use the same memory. */
  add({ id, parameter }: Destination, gradient: Tensor): void {
    if (!parameter) this.put(id, gradient);
    else addTo(this.#ofParameter(parameter), gradient);
  }

  #ofParameter(parameter: Parameter): GradientMemory {
    if (!this.#sums || parameter.gradientDtype !== 'bfloat16') return targetOf(parameter);
    const { byParameter } = this.#sums;
    if (!byParameter.has(parameter)) reserveSums(parameter, byParameter);
    const sum = byParameter.get(parameter)!;
    const overwrite = sum.isNew;
    sum.isNew = false;
    return { gradient: sum.memory, overwrite };
  }

  put(id: number, gradient: Tensor): void {
    const present = this.#byId.get(id);
    if (!present) {
      const held = gradient.alias();
      disown(held);
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

/** What the backward of one op sees: the gradients of its inputs. */
export class OpGradients {
  /** Those of the whole backward; the nodes of a region inside go on with them. */
  readonly all: Gradients;
  readonly #destinations: readonly (Destination | null)[];

  constructor(all: Gradients, destinations: readonly (Destination | null)[]) {
    this.all = all;
    this.#destinations = destinations;
  }

  /** Whether input i wants a gradient. */
  needs(i: number): boolean {
    return this.#destinations[i] != null;
  }

  /**
   * Memory for the gradient of input i, a weight, in the compute dtype, or bf16 where the parameter's gradient is and the op runs
   * outside of `overChunks` or in one chunk.
   */
  target(i: number): GradientMemory | null {
    const destination = this.#destinations[i];
    return destination ? this.all.target(destination) : null;
  }

  /** Hands the finished gradient of input i over: it becomes a parameter's `.grad` where there is none yet. */
  adopt(i: number, gradient: Tensor): void {
    const destination = this.#destinations[i];
    if (destination) this.all.adopt(destination, gradient);
  }

  /**
   * Runs `fn`, which adds to the gradients of weights once a chunk, through the gradients that it is given. Where there are several chunks,
   * bf16 gradients of parameters are meanwhile summed in f32 memory and rounded at the end: rounding in every chunk would lose training.
   */
  overChunks(numChunks: number, fn: (gradients: OpGradients) => void): void {
    this.all.overChunks(numChunks, (all) => fn(new OpGradients(all, this.#destinations)));
  }
}

/** A handle that no scope owns. */
export function hold(tensor: Tensor): Tensor {
  const handle = tensor.alias();
  handle.requiresGrad = tensor.requiresGrad;
  disown(handle);
  return handle;
}

/** A parameter's `.grad`, which is made where there is none. */
function targetOf(parameter: Parameter): GradientMemory {
  const overwrite = parameter.grad === null;
  if (overwrite) allocateGradient(parameter);
  return { gradient: parameter.grad!, overwrite };
}

function addTo({ gradient, overwrite }: GradientMemory, added: Tensor): void {
  if (overwrite) kernels.cast(added, gradient);
  else kernels.add_to(added, gradient);
}

/** Gives a parameter its `.grad`, garbage as yet. Members of a group get theirs together, so that these are neighbours as well. */
function allocateGradient(parameter: Parameter): void {
  if (!parameter.reservedGrad) {
    const members = groupOf(parameter).filter(({ grad }) => grad === null);
    const gradients = together(members, parameter.gradientDtype, 'gradient');
    members.forEach((member, i) => {
      const gradient = gradients[i]!;
      gradient.name = `gradient of ${member.name ?? 'a parameter'}`;
      member.reservedGrad = gradient;
    });
  }
  parameter.grad = parameter.reservedGrad;
  parameter.reservedGrad = null;
}

/** As allocateGradient(), for sums over chunks. */
function reserveSums(parameter: Parameter, sums: Sums['byParameter']): void {
  const members = groupOf(parameter);
  together(members, 'float32', 'workspace').forEach((memory, i) => {
    sums.set(members[i]!, { memory, isNew: true });
  });
}

/** Those of a parameter's group that want gradients. */
function groupOf(parameter: Parameter): Parameter[] {
  return (parameter.group ?? [parameter]).filter(({ requiresGrad }) => requiresGrad);
}

/** Memory of the shapes of these, one after another, that no scope owns. */
function together(like: readonly Tensor[], dtype: Dtype, category: Category): Tensor[] {
  const { device } = like[0]!;
  const shapes = like.map(({ shape }) => shape);
  const made = emptyGroup(shapes, { dtype, device, category });
  for (const each of made) disown(each);
  return made;
}
