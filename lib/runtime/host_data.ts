// Converts JavaScript arrays to a tensor's elements.
import { type Dtype, dtypes, type TensorData, toBfloat16, toFloat32 } from './dtype.ts';
import { kindOf } from './shape.ts';

/** The dtype that a typed array stores; float32 for an array of numbers. */
export function dtypeOf(data: TensorData | ArrayLike<number>): Dtype {
  for (const [name, facts] of Object.entries(dtypes)) if (data instanceof facts.array) return name as Dtype;
  return 'float32';
}

/** The elements as the dtype's typed array. Throws if one is not a number, or does not fit an integer dtype. */
export function convert(data: TensorData | ArrayLike<number>, dtype: Dtype): TensorData {
  const { array } = dtypes[dtype];
  if (data instanceof array) return data;
  const numbers = data instanceof Uint16Array ? toFloat32(data) : data;
  for (let i = 0; i < numbers.length; i++) {
    const value: unknown = numbers[i];
    if (typeof value !== 'number') throw new TypeError(`tensor: element ${i} must be a number, got ${kindOf(value)}`);
    if (dtype === 'int32' && (value | 0) !== value) {
      throw new RangeError(`tensor: element ${i}, ${value}, is not a 32-bit integer`);
    }
    if (dtype === 'uint8' && (value & 0xff) !== value) {
      throw new RangeError(`tensor: element ${i}, ${value}, is not an integer from 0 to 255`);
    }
  }
  return dtype === 'bfloat16' ? toBfloat16(numbers) : array.from(numbers);
}
