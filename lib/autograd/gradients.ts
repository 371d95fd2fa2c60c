// Gradients during a backward: those of the values between ops, and those of parameters, which end in `.grad`.
import { computeDtype, type Dtype } from '../runtime/dtype.ts';
import type { Category } from '../runtime/memory/statistics.ts';
import { kernels } from '../runtime/native.ts';
import { disown, tidy } from '../runtime/scope.ts';
import { empty, emptyGroup, type Tensor } from '../runtime/tensor.ts';
import type { Parameter } from './parameter.ts';
import type { Uses } from './uses.ts';

/** An input that gets a gradient; `parameter` is null unless the input is a parameter. */
export interface Destination {
  id: number;
  parameter: Parameter | null;
  prototype: Tensor;
}

/** Memory for a weight's gradient. */
interface GradientMemory {
  gradient: Tensor;
  /** True: the memory holds garbage, so write to it. False: add to its contents. */
  overwrite: boolean;
}

/** Sums of gradients over the chunks of an op. */
interface Sums {
  /** f32 sums of bf16 gradients. isNew: true until the first write. */
  byParameter: Map<Parameter, { memory: Tensor; isNew: boolean }>;
  /** Parameters whose gradients are complete once these sums have been added to them. */
  complete: Parameter[];
}

/** All gradients of one backward. Gradients of values between ops are kept here by the value's id. */
export class Gradients {
  readonly #byId: Map<number, Tensor>;
  readonly #uses: Uses | null;
  readonly #sums: Sums | null;
  #one: Tensor | null = null;

  /** @param uses counts uses of parameters to report complete gradients; null: nobody asked */
  constructor(uses: Uses | null, byId: Map<number, Tensor> = new Map(), sums: Sums | null = null) {
    this.#uses = uses;
    this.#byId = byId;
    this.#sums = sums;
  }

  /** Called after a node's backward, with the parameters that it used, once for each use. */
  finish(parameters: readonly Parameter[]): void {
    if (!this.#uses) return;
    const complete = this.#uses.takeAway(parameters);
    if (this.#sums) this.#sums.complete.push(...complete);
    else this.#uses.report(complete);
  }

  /** See OpGradients. */
  overChunks(numChunks: number, fn: (gradients: Gradients) => void): void {
    if (numChunks === 1 || this.#sums) {
      fn(this); // one chunk, or inside an op that sums already
      return;
    }
    const { byParameter, complete }: Sums = { byParameter: new Map(), complete: [] };
    try {
      // This scope frees the workspaces before gradients are allocated.
      tidy(() => fn(new Gradients(this.#uses, this.#byId, { byParameter, complete })));
      for (const [parameter, { memory, isNew }] of byParameter) if (!isNew) addTo(targetOf(parameter), memory);
    } finally {
      for (const { memory } of byParameter.values()) memory.dispose();
    }
    this.#uses?.report(complete);
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

  /** Takes over a finished gradient. It becomes the parameter's `.grad`, or is added to it if there is one. */
  adopt(destination: Destination, gradient: Tensor): void {
    const { parameter } = destination;
    const fits = gradient.dtype === parameter?.gradientDtype && !this.#sums;
    if (fits && parameter.grad === null && !parameter.reservedGrad && !parameter.group) {
      parameter.grad = hold(gradient);
      parameter.grad.name = `gradient of ${parameter.name ?? 'a parameter'}`;
    } else this.add(destination, gradient);
  }

  /** Adds `gradient` to the gradient of an input. May keep an alias of it, but does not dispose it. */
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

  /** Adds `gradient` to the gradient of the value `id`; the first one is kept as an alias instead of copied. */
  put(id: number, gradient: Tensor): void {
    const present = this.#byId.get(id);
    if (!present) {
      const held = gradient.alias();
      disown(held);
      this.#byId.set(id, held);
    } else if (!present.isShared) kernels.add_to(gradient, present);
    else {
      const sum = empty(present.shape, { dtype: present.dtype, device: present.device, category: 'activation' });
      kernels.add(present, gradient, sum);
      disown(sum);
      present.dispose();
      this.#byId.set(id, sum);
    }
  }

  /** Puts 1, the gradient of a scalar with respect to itself, which a backward starts from. */
  start({ id, shape, dtype, device }: Tensor): void {
    this.#one = empty(shape, { dtype, device, category: 'activation' });
    disown(this.#one);
    this.#byId.set(id, this.#one);
    kernels.fill(this.#one, 1);
  }

  /** See OpGradients. */
  isOne(gradient: Tensor): boolean {
    return gradient === this.#one;
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

/** The gradients of one op's inputs, by the names of these, as its backward sees them. */
export class OpGradients<Name extends string = string> {
  /** The gradients of the whole backward. A region inside the op passes them to its nodes. */
  readonly all: Gradients;
  readonly #destinations: ReadonlyMap<string, Destination>;

  constructor(all: Gradients, destinations: ReadonlyMap<string, Destination>) {
    this.all = all;
    this.#destinations = destinations;
  }

  /** Whether `dy` is the 1 that the backward started from, so that multiplying by it can be skipped. */
  isOne(dy: Tensor): boolean {
    return this.all.isOne(dy);
  }

  /** Whether an input needs a gradient. */
  needs(name: Name): boolean {
    return this.#destinations.has(name);
  }

  /**
   * Memory for the gradient of an input that is a weight; null if it needs none. Its dtype is the compute dtype, or bf16 if the parameter's
   * gradient is bf16 and the op does not sum over several chunks.
   */
  target(name: Name): GradientMemory | null {
    const destination = this.#destinations.get(name);
    return destination ? this.all.target(destination) : null;
  }

  /** Takes over the finished gradient of an input. It becomes the parameter's `.grad`, or is added to it if there is one. */
  adopt(name: Name, gradient: Tensor): void {
    const destination = this.#destinations.get(name);
    if (destination) this.all.adopt(destination, gradient);
  }

  /**
   * Runs `fn`, which adds each chunk's part to the gradients of weights; it must use the OpGradients that it is given. With several
   * chunks, bf16 gradients of parameters are summed in f32 and rounded once at the end, since rounding after every chunk loses accuracy.
   */
  overChunks(numChunks: number, fn: (gradients: OpGradients<Name>) => void): void {
    this.all.overChunks(numChunks, (all) => fn(new OpGradients(all, this.#destinations)));
  }
}

/** Another handle on the same memory, owned by the caller and by no scope. */
export function hold(tensor: Tensor): Tensor {
  const handle = tensor.alias();
  handle.requiresGrad = tensor.requiresGrad;
  disown(handle);
  return handle;
}

/** A parameter's `.grad`, allocated if there is none. */
function targetOf(parameter: Parameter): GradientMemory {
  const overwrite = parameter.grad === null;
  if (overwrite) allocateGradient(parameter);
  return { gradient: parameter.grad!, overwrite };
}

function addTo({ gradient, overwrite }: GradientMemory, added: Tensor): void {
  if (overwrite) kernels.cast(added, gradient);
  else kernels.add_to(added, gradient);
}

/** Allocates a parameter's `.grad`, with garbage in it. The gradients of a group are allocated together, side by side. */
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

/** Like allocateGradient(), for the f32 sums over chunks. */
function reserveSums(parameter: Parameter, sums: Sums['byParameter']): void {
  const members = groupOf(parameter);
  together(members, 'float32', 'workspace').forEach((memory, i) => {
    sums.set(members[i]!, { memory, isNew: true });
  });
}

/** The members of a parameter's group that need gradients. */
function groupOf(parameter: Parameter): Parameter[] {
  return (parameter.group ?? [parameter]).filter(({ requiresGrad }) => requiresGrad);
}

/** Tensors with the shapes of `like`, side by side in memory, owned by no scope. */
function together(like: readonly Tensor[], dtype: Dtype, category: Category): Tensor[] {
  const { device } = like[0]!;
  const shapes = like.map(({ shape }) => shape);
  const made = emptyGroup(shapes, { dtype, device, category });
  for (const each of made) disown(each);
  return made;
}
