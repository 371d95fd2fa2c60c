// Tensors: a shape and a dtype over a piece of a device's arena.
import { type Device, type DeviceName, getDevice } from './device.ts';
import { type Dtype, dtypes, isDtype, type TensorData, toFloat32 } from './dtype.ts';
import { convert, dtypeOf } from './host_data.ts';
import type { Block } from './memory/arena.ts';
import { hostOutOfMemory } from './memory/errors.ts';
import { type BlockContent, type Category, categories } from './memory/statistics.ts';
import { addon, kernels } from './native.ts';
import { disown, type Owned, own } from './scope.ts';
import { checkShape, kindOf, sizeOf } from './shape.ts';

let nextOwner = 1;

/** A reference-counted block of the arena. The last user's release returns it to the arena. */
class Storage {
  readonly device: Device;
  readonly block: Block;
  /** Unique. A failed op marks its outputs by owner, so its mark does not apply to later tensors in the same memory (failures.h). */
  readonly owner: number = nextOwner++;
  #users = 0;
  /** Of the last copy beside commands that uses the block. */
  #event: number | undefined;

  constructor(device: Device, bytes: number, category: Category, content: BlockContent) {
    this.device = device;
    this.block = device.arena.allocate(bytes, category, content);
  }

  retain(): this {
    this.#users += 1;
    return this;
  }
  release(): void {
    this.#users -= 1;
    if (this.#users === 0) this.device.arena.release(this.block, this.#event);
  }
  recordEvent(event: number): void {
    if (this.#event !== undefined) this.device.arena.waitFor(this.#event); // the arena frees after one event
    this.#event = event;
  }
  get isShared(): boolean {
    return this.#users > 1;
  }
}

/** A tensor's place in memory, shape and dtype. */
interface Elements {
  storage: Storage;
  byteOffset: number;
  shape: readonly number[];
  dtype: Dtype;
  /** Of a view of columns: elements from one row to the next. @default the columns */
  rowStride?: number;
}

let nextId = 1;
const leaks = new FinalizationRegistry((what: string) => {
  process.emitWarning(`a tensor was garbage-collected without dispose(): ${what}`, { code: 'MINISEQUENCE_LEAK' });
});

/** Most bytes of a tensor; offsets up to it are exact in a JavaScript number. */
const MAX_BYTES = Number.MAX_SAFE_INTEGER;

/**
 * An array on a device. Ops and `tensor`, `zeros`, … create tensors; `dispose()`, or the end of the scope (`tidy`) or step that a tensor
 * was made in, frees it. Reads (`data()`, `item()`) return promises; ops return at once.
 */
export class Tensor {
  // Checked once, by the constructor's callers, and private: these decide which memory ops read and write.
  readonly #elements: Elements;
  readonly #size: number;
  #view: Float64Array | null = null;
  #isDisposed = false;

  /** Identifies this value in a backward; views and aliases have their own. */
  readonly id: number = nextId++;
  /** Name in a model ('model.norm.weight'), for errors. */
  name: string | null = null;
  /** Whether gradients flow to it: true for a parameter that is not frozen and for whatever a recorded op computes from one. */
  requiresGrad = false;
  /** The scope that disposes it; see scope.ts. */
  scope: Set<Owned> | null = null;

  /** @param of elements whose shape checkShape() has returned, or a tensor, to create another handle on its memory */
  constructor(of: Elements | Tensor) {
    if (of instanceof Tensor && of.#isDisposed) throw new Error(`${of}: used after dispose()`);
    this.#elements = of instanceof Tensor ? of.#elements : of;
    this.#size = sizeOf(this.shape);
    this.#elements.storage.retain();
    own(this);
    if (!this.scope) leaks.register(this, `${this.dtype}(${this.shape})`, this);
  }

  get shape(): readonly number[] {
    return this.#elements.shape;
  }
  get dtype(): Dtype {
    return this.#elements.dtype;
  }
  get device(): Device {
    return this.#elements.storage.device;
  }
  get size(): number {
    return this.#size;
  }
  get sizeBytes(): number {
    return this.#size * dtypes[this.dtype].bytes;
  }
  get isDisposed(): boolean {
    return this.#isDisposed;
  }
  /** Whether another tensor uses the same memory. */
  get isShared(): boolean {
    return this.#elements.storage.isShared;
  }

  /** The tensor as the addon takes it: [address, dtype, device, row stride, shape..., -owner]. Throws after dispose(). */
  get view(): Float64Array {
    const address = this.#address;
    this.#view ??= Float64Array.of(
      address,
      dtypes[this.dtype].code,
      this.device.id ?? 0,
      this.#elements.rowStride ?? this.shape.at(-1) ?? 1,
      ...this.shape,
      -this.#elements.storage.owner,
    );
    return this.#view;
  }
  get #address(): number {
    if (this.#isDisposed) throw new Error(`${this}: used after dispose()`);
    return this.device.address(this.#elements.storage.block.offset + this.#elements.byteOffset);
  }

  /** The elements, once all earlier ops have run. bfloat16 elements come as 16-bit words; see toFloat32(). */
  async data(): Promise<TensorData> {
    if (this.device.id === null) throw new Error(`${this}: a tensor on 'meta' has no data`);
    this.#requireWholeRows('data');
    const elements = this.#hostArray();
    await addon().read(this.device.id, this.#address, new Uint8Array(elements.buffer), this.#elements.storage.owner);
    return elements;
  }

  #hostArray(): TensorData {
    try {
      return new dtypes[this.dtype].array(this.#size);
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
   * Overwrites all elements. Copies `data` at once, so the caller may reuse it.
   * @param data the dtype's typed array (Uint16Array: bfloat16 words), or its bytes as a Uint8Array
   */
  write(data: TensorData | Uint8Array): void {
    this.#requireWholeRows('write');
    const { array } = dtypes[this.dtype];
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
      addon().write(id, address, bytes, this.#elements.storage.owner);
    } catch (error) {
      if ((error as { code?: string }).code !== 'OUT_OF_MEMORY') throw error;
      throw hostOutOfMemory(`write: ${this}`, bytes.length, error);
    }
  }

  /** Another handle on the same memory. It is a constant: no gradient flows through it. */
  alias(): Tensor {
    return this.#derive(this.#elements.byteOffset, this.shape, this.#elements.rowStride);
  }

  /**
   * Rows [begin, end) of the first dimension, on the same memory. No gradient flows through this view, so this throws if gradients flow to
   * the tensor; use the op `rows` there.
   */
  rows(begin: number, end: number): Tensor {
    this.#requireConstant(`rows(x, ${begin}, ${end})`, `rows(${begin}, ${end})`);
    const [count = 0, ...rest] = this.shape;
    if (!(Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= count)) {
      throw new RangeError(`rows: [${begin}, ${end}) is not within the ${count} rows of ${this}`);
    }
    this.#requireWholeRows('rows');
    const rowBytes = sizeOf(rest) * dtypes[this.dtype].bytes;
    return this.#derive(this.#elements.byteOffset + begin * rowBytes, Object.freeze([end - begin, ...rest]));
  }

  /**
   * Columns [begin, end) of a tensor (N,C), on the same memory: a constant for kernels that take any row stride, such as `cast` and
   * `matmul`. It has no rows or other shapes of its own and cannot be read or written from the host.
   */
  columns(begin: number, end: number): Tensor {
    if (this.requiresGrad)
      throw new Error(`columns(${begin}, ${end}): gradients flow to ${this}, but none would flow through this view`);
    this.#requireWholeRows('columns');
    const [rows, count = 0] = this.shape;
    if (this.shape.length !== 2) throw new RangeError(`columns: needs a tensor (N,C), got ${this}`);
    if (!(Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= count)) {
      throw new RangeError(`columns: [${begin}, ${end}) is not within the ${count} columns of ${this}`);
    }
    const byteOffset = this.#elements.byteOffset + begin * dtypes[this.dtype].bytes;
    return this.#derive(byteOffset, Object.freeze([rows!, end - begin]), count);
  }

  /** Tensors (rows,…) that follow one another in memory, as one with all of their rows: a constant. null if they do not. */
  static joined(tensors: readonly Tensor[]): Tensor | null {
    const [first] = tensors;
    if (!first) return null;
    const { storage, byteOffset, shape, dtype } = first.#elements;
    const cols = sizeOf(shape.slice(1));
    let [end, rows] = [byteOffset, 0];
    for (const tensor of tensors) {
      const of = tensor.#elements;
      const isNext = of.storage === storage && of.byteOffset === end && of.rowStride === undefined;
      if (!isNext || of.dtype !== dtype || sizeOf(of.shape.slice(1)) !== cols) return null;
      end += tensor.sizeBytes;
      rows += of.shape[0] ?? 1;
    }
    return first.#derive(byteOffset, Object.freeze([rows, cols]));
  }

  /** The same elements in another shape, on the same memory. Throws if gradients flow to the tensor; use the op `reshape` there. */
  reshape(shape: readonly number[]): Tensor {
    this.#requireConstant(`reshape(x, [${shape}])`, `reshape([${shape}])`);
    this.#requireWholeRows('reshape');
    const checked = checkShape('reshape', shape);
    if (sizeOf(checked) !== this.#size) {
      throw new RangeError(`reshape: ${this} has ${this.#size} elements, (${checked}) would have ${sizeOf(checked)}`);
    }
    return this.#derive(this.#elements.byteOffset, checked);
  }

  /**
   * Tells that a copy beside commands uses the tensor's memory until `event` (see `Device.copyBeside`). When the last handle on the memory
   * is gone, it is free at once, and whoever gets it next waits for the event.
   */
  recordEvent(event: number): void {
    if (this.#isDisposed) throw new Error(`${this}: used after dispose()`);
    this.#elements.storage.recordEvent(event);
  }

  /** Takes this tensor out of its scope; from now on only dispose() frees it. */
  keep(): this {
    if (this.scope) leaks.register(this, String(this), this);
    disown(this);
    return this;
  }

  /** Ends this handle. The memory is freed with the last handle on it. Calling it again does nothing. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    leaks.unregister(this);
    disown(this);
    this.#elements.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.name ?? 'tensor'} ${this.dtype}(${this.shape.join(',')})`;
  }

  /** The methods' views are constants. Without this check they would silently cut the flow of gradients. */
  #requireConstant(op: string, view: string): void {
    if (!this.requiresGrad) return;
    throw new Error(
      `${view}: gradients flow to ${this}, but none would flow through this view; ` +
        `use the op ${op} for a view that passes gradients on, or x.alias().${view} for a constant`,
    );
  }

  #requireWholeRows(op: string): void {
    const { rowStride } = this.#elements;
    if (rowStride === undefined) return;
    throw new Error(`${op}: ${this} is a view of some columns of rows of ${rowStride}; cast it into a tensor first`);
  }

  #derive(byteOffset: number, shape: readonly number[], rowStride?: number): Tensor {
    if (this.#isDisposed) throw new Error(`${this}: used after dispose()`);
    const tensor = new Tensor({ ...this.#elements, byteOffset, shape, rowStride });
    tensor.name = this.name;
    return tensor;
  }
}

/** A tensor whose elements are not initialised. */
export function empty(
  shape: readonly number[],
  options: { dtype?: Dtype; device?: Device | DeviceName; category?: Category } = {},
): Tensor {
  return emptyGroup([shape], options)[0]!;
}

/** Several uninitialised tensors that lie side by side in memory, without gaps. */
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
  const storage = new Storage(getDevice(device), total, category, { dtype, shapes: checked });
  let offset = 0;
  return checked.map((shape, i) => {
    const tensor = new Tensor({ storage, byteOffset: offset, shape, dtype });
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
 * A tensor with the given elements, in row-major order. Numbers are rounded to a floating dtype; for int32 they must be 32-bit integers.
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
