// Tensors: a shape and a dtype over a piece of a device's arena.
import { type Device, type DeviceName, getDevice } from './device.ts';
import {
  computeDtype,
  type Dtype,
  dtypes,
  type GradientDtype,
  gradientDtypeFor,
  isDtype,
  type TensorData,
  toFloat32,
} from './dtype.ts';
import { convert, dtypeOf } from './host_data.ts';
import type { Block } from './memory/arena.ts';
import { hostOutOfMemory } from './memory/errors.ts';
import { type Category, categories } from './memory/statistics.ts';
import { addon, kernels } from './native.ts';
import { disown, type Owned, own } from './scope.ts';
import { checkShape, kindOf, sizeOf } from './shape.ts';

let nextOwner = 1;

/** A block of the arena with its number of users; goes back to the arena with the last of them. */
class Storage {
  readonly device: Device;
  readonly block: Block;
  /** Tells it from what had the same memory before: an op that failed has left marks there (native/failures.h). */
  readonly owner: number = nextOwner++;
  #users = 0;

  constructor(device: Device, bytes: number, category: Category) {
    this.device = device;
    this.block = device.arena.allocate(bytes, category);
  }

  retain(): this {
    this.#users += 1;
    return this;
  }
  release(): void {
    this.#users -= 1;
    if (this.#users === 0) this.device.arena.release(this.block);
  }
  get isShared(): boolean {
    return this.#users > 1;
  }
}

/** The file's values of a parameter that was rounded when it was loaded. */
export interface StoredValues {
  /** Elements [begin, end) as f32. */
  read(begin: number, end: number): Promise<Float32Array>;
  /** The same while everything else waits. */
  readSync(begin: number, end: number): Float32Array;
}

let nextId = 1;
const leaks = new FinalizationRegistry((what: string) => {
  process.emitWarning(`a tensor was lost without dispose(): ${what}`, { code: 'MINISEQUENCE_LEAK' });
});

/** Bytes of the longest tensor: offsets stay exact. */
const MAX_BYTES = Number.MAX_SAFE_INTEGER;

/**
 * An array on a device. Made by ops and by `tensor`, `zeros`, …; ended by `dispose()`, by the scope (`tidy`) or the step that it
 * was made in. Reading it (`data()`, `item()`) is a promise; computing with it is not.
 */
export class Tensor {
  // What was checked when the tensor was made decides what is read and written later: nobody can change it.
  readonly #shape: readonly number[];
  readonly #dtype: Dtype;
  readonly #size: number;
  readonly #storage: Storage;
  /** In bytes, from the start of the storage. */
  readonly #byteOffset: number;
  #view: Float64Array | null = null;
  #isDisposed = false;

  /** Names this value in gradients; views and aliases have their own. */
  readonly id: number = nextId++;
  /** Name in a model ('model.norm.weight'), used by errors. */
  name: string | null = null;
  /** Whether gradients flow to it. Set by `asParameter`, or by an op for its output. */
  requiresGrad = false;
  /** Whether it is a leaf whose gradient is kept in `.grad`. */
  isParameter = false;
  /** Dtype of `grad`: f32 (f64 for f64), or what `asParameter` was given. */
  gradientDtype: Dtype;
  /** Gradient of a parameter, once a backward has reached it. */
  grad: Tensor | null = null;
  /** Memory of a `grad` that no backward has written yet; see `group`. */
  reservedGrad: Tensor | null = null;
  /** Parameters side by side in memory, whose gradients and optimizer state lie side by side too. */
  group: readonly Tensor[] | null = null;
  /** What a parameter was rounded from; null: it has the values of its file. */
  stored: StoredValues | null = null;
  /** f32 copy of a bf16 parameter, which an optimizer updates; the parameter is its rounded value. */
  master: Tensor | null = null;
  /** The scope that disposes it; see scope.ts. */
  scope: Set<Owned> | null = null;
  /** Whether it is the gradient 1 that a backward begins with, which needs no multiplication. */
  isOne = false;
  /** Whether it is a view of a tensor that gradients flow to, which do not flow through the view; ops on a tape refuse it. */
  cutsGradients = false;

  /** @param shape checked by checkShape() */
  constructor(storage: Storage, byteOffset: number, shape: readonly number[], dtype: Dtype) {
    this.#shape = shape;
    this.#dtype = dtype;
    this.#size = sizeOf(shape);
    this.gradientDtype = computeDtype(dtype);
    this.#storage = storage.retain();
    this.#byteOffset = byteOffset;
    own(this);
    if (!this.scope) leaks.register(this, `${dtype}(${shape})`, this);
  }

  get shape(): readonly number[] {
    return this.#shape;
  }
  get dtype(): Dtype {
    return this.#dtype;
  }
  get device(): Device {
    return this.#storage.device;
  }
  get size(): number {
    return this.#size;
  }
  get sizeBytes(): number {
    return this.#size * dtypes[this.#dtype].bytes;
  }
  get isDisposed(): boolean {
    return this.#isDisposed;
  }
  /** Whether another tensor uses the same memory. */
  get isShared(): boolean {
    return this.#storage.isShared;
  }

  /** What the addon takes: [address, dtype, device, row stride, shape..., -owner]. Throws after dispose(). */
  get view(): Float64Array {
    const address = this.#address;
    this.#view ??= Float64Array.of(
      address,
      dtypes[this.#dtype].code,
      this.device.id ?? 0,
      this.#shape.at(-1) ?? 1,
      ...this.#shape,
      -this.#storage.owner,
    );
    return this.#view;
  }
  get #address(): number {
    if (this.#isDisposed) throw new Error(`${this}: used after dispose()`);
    return this.device.address(this.#storage.block.offset + this.#byteOffset);
  }

  /** The elements, once everything before has run. bfloat16 comes as words; see toFloat32(). */
  async data(): Promise<TensorData> {
    if (this.device.id === null) throw new Error(`${this}: a tensor on 'meta' has no data`);
    const elements = this.#hostArray();
    await addon().read(this.device.id, this.#address, new Uint8Array(elements.buffer), this.#storage.owner);
    return elements;
  }

  #hostArray(): TensorData {
    try {
      return new dtypes[this.#dtype].array(this.#size);
    } catch (error) {
      throw hostOutOfMemory(`data: ${this}`, this.sizeBytes, error);
    }
  }

  /** The elements of a floating tensor as f32. */
  async toFloat32(): Promise<Float32Array> {
    const data = await this.data();
    return data instanceof Uint16Array ? toFloat32(data) : Float32Array.from(data);
  }

  /** The one element of a scalar. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new RangeError(`item: needs a tensor of 1 element, got ${this.size} of ${this}`);
    const data = await this.data();
    return data instanceof Uint16Array ? toFloat32(data)[0]! : data[0]!;
  }

  /**
   * Overwrites all elements. The copy is taken at once.
   * @param data the dtype's typed array (Uint16Array: bfloat16 words), or its bytes as a Uint8Array
   */
  write(data: TensorData | Uint8Array): void {
    const { array } = dtypes[this.#dtype];
    if (!(data instanceof array || data instanceof Uint8Array)) {
      throw new TypeError(`write: ${this} takes a ${array.name} or bytes in a Uint8Array, got ${kindOf(data)}`);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (bytes.length !== this.sizeBytes) {
      throw new RangeError(`write: ${this} takes ${this.sizeBytes} bytes, got ${bytes.length}`);
    }
    const address = this.#address;
    const { id } = this.device;
    if (id === null || bytes.length === 0) return;
    try {
      addon().write(id, address, bytes, this.#storage.owner);
    } catch (error) {
      if ((error as { code?: string }).code !== 'OUT_OF_MEMORY') throw error;
      throw hostOutOfMemory(`write: ${this}`, bytes.length, error);
    }
  }

  /** Another handle on the same memory, a constant: no gradient flows through it. */
  alias(): Tensor {
    return this.#derive(this.#byteOffset, this.#shape);
  }

  /** Rows [begin, end) of the first dimension, on the same memory. No gradient flows through it; see the op `rows`. */
  rows(begin: number, end: number): Tensor {
    const [count = 0, ...rest] = this.#shape;
    if (!(Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= count)) {
      throw new RangeError(`rows: [${begin}, ${end}) is not within the ${count} rows of ${this}`);
    }
    const rowBytes = sizeOf(rest) * dtypes[this.#dtype].bytes;
    const view = this.#derive(this.#byteOffset + begin * rowBytes, Object.freeze([end - begin, ...rest]));
    view.cutsGradients = this.requiresGrad || this.cutsGradients;
    return view;
  }

  /** The same elements in another shape, on the same memory. No gradient flows through it; see the op `reshape`. */
  reshape(shape: readonly number[]): Tensor {
    const checked = checkShape('reshape', shape);
    if (sizeOf(checked) !== this.#size) {
      throw new RangeError(`reshape: ${this} has ${this.#size} elements, (${checked}) would have ${sizeOf(checked)}`);
    }
    const view = this.#derive(this.#byteOffset, checked);
    view.cutsGradients = this.requiresGrad || this.cutsGradients;
    return view;
  }

  /**
   * Makes this a leaf that collects gradients and that no scope owns.
   * @param options.gradientDtype of `grad`: 'float32' (f64 for f64), or for a bf16 parameter 'bfloat16', which takes half the memory. Sums
   *   are in f32 all the same: an op rounds what it gives once, and once more where it adds to what a `grad` has. @default 'float32'
   */
  asParameter(name: string | null = null, options: { gradientDtype?: GradientDtype } = {}): this {
    this.gradientDtype = gradientDtypeFor(`asParameter ${name ?? this}`, this.dtype, options.gradientDtype);
    this.keep();
    this.isParameter = true;
    this.requiresGrad = true;
    this.name = name;
    return this;
  }

  /** Takes this out of its scope: from now on only dispose() ends it. */
  keep(): this {
    if (this.scope) leaks.register(this, String(this), this);
    disown(this);
    return this;
  }

  /** Frees the gradient: the next backward begins at zero. */
  zeroGrad(): void {
    this.grad?.dispose();
    this.reservedGrad?.dispose();
    this.grad = null;
    this.reservedGrad = null;
  }

  /** Ends this handle; the memory goes back with the last handle on it. Doing it twice is harmless. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    leaks.unregister(this);
    disown(this);
    this.zeroGrad();
    this.#storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.name ?? 'tensor'} ${this.dtype}(${this.shape.join(',')})`;
  }

  #derive(byteOffset: number, shape: readonly number[]): Tensor {
    if (this.#isDisposed) throw new Error(`${this}: used after dispose()`);
    const tensor = new Tensor(this.#storage, byteOffset, shape, this.#dtype);
    tensor.name = this.name;
    return tensor;
  }
}

/** A tensor with garbage in it. */
export function empty(
  shape: readonly number[],
  options: { dtype?: Dtype; device?: Device | DeviceName; category?: Category } = {},
): Tensor {
  return emptyGroup([shape], options)[0]!;
}

/** Several tensors that lie one after another in memory without a gap. */
export function emptyGroup(
  shapes: readonly (readonly number[])[],
  options: { dtype?: Dtype; device?: Device | DeviceName; category?: Category } = {},
): Tensor[] {
  const { dtype = 'float32', device = 'cpu', category = 'other' } = options;
  if (!isDtype(dtype)) {
    throw new TypeError(`tensor: dtype '${String(dtype)}' is none of ${Object.keys(dtypes).join(', ')}`);
  }
  if (!categories.includes(category)) {
    throw new TypeError(`tensor: category '${String(category)}' is none of ${categories.join(', ')}`);
  }
  const checked = shapes.map((shape) => checkShape('tensor', shape));
  const bytes = checked.map((shape) => sizeOf(shape) * dtypes[dtype].bytes);
  const total = bytes.reduce((sum, each) => sum + each, 0);
  if (total > MAX_BYTES) throw new RangeError(`tensor: shape (${checked.join('), (')}) has too many elements`);
  const storage = new Storage(getDevice(device), total, category);
  let offset = 0;
  return checked.map((shape, i) => {
    const tensor = new Tensor(storage, offset, shape, dtype);
    offset += bytes[i]!;
    return tensor;
  });
}

/** A tensor of zeros. */
export function zeros(
  shape: readonly number[],
  options: { dtype?: Dtype; device?: Device | DeviceName; category?: Category } = {},
): Tensor {
  const result = empty(shape, options);
  kernels.fill(result, 0);
  return result;
}

/**
 * A tensor with the given elements, in row-major order. Numbers are rounded to a floating dtype; for int32 they must be integers of 32 bits.
 * @param data numbers, or a typed array (Uint16Array: bfloat16 words)
 */
export function tensor(
  data: TensorData | ArrayLike<number>,
  options: { shape?: readonly number[]; dtype?: Dtype; device?: Device | DeviceName; category?: Category } = {},
): Tensor {
  if (!Array.isArray(data) && (!ArrayBuffer.isView(data) || data instanceof DataView)) {
    throw new TypeError(`tensor: data must be an array of numbers or a typed array, got ${kindOf(data)}`);
  }
  const { dtype = dtypeOf(data), device, category } = options;
  const shape = checkShape('tensor', options.shape ?? [data.length]);
  if (sizeOf(shape) !== data.length) {
    throw new RangeError(`tensor: shape (${shape}) has ${sizeOf(shape)} elements, data has ${data.length}`);
  }
  const result = empty(shape, { dtype, device, category });
  try {
    result.write(convert(data, dtype));
  } catch (error) {
    result.dispose();
    throw error;
  }
  return result;
}
