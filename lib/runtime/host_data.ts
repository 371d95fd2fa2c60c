// Elements on their way from JavaScript's arrays to a tensor.
import { type Dtype, dtypes, type TensorData, toBfloat16, toFloat32 } from './dtype.ts';
import { kindOf } from './shape.ts';

/** The dtype that goes with a typed array; float32 for numbers. */
export function dtypeOf(data: TensorData | ArrayLike<number>): Dtype {
  for (const [name, facts] of Object.entries(dtypes)) if (data instanceof facts.array) return name as Dtype;
  return 'float32';
}

/** The elements in the array type of a dtype. Throws where one is no number, or none that an integer dtype holds. */
export function convert(data: TensorData | ArrayLike<number>, dtype: Dtype): TensorData {
  const { array } = dtypes[dtype];
  if (data instanceof array) return data;
  const numbers = data instanceof Uint16Array ? toFloat32(data) : data;
  for (let i = 0; i < numbers.length; i++) {
    const value: unknown = numbers[i];
    if (typeof value !== 'number') throw new TypeError(`tensor: element ${i} must be a number, got ${kindOf(value)}`);
    if (dtype === 'int32' && (value | 0) !== value) {
      throw new RangeError(`tensor: element ${i}, ${value}, is not an integer of 32 bits`);
    }
    if (dtype === 'uint8' && (value & 0xff) !== value) {
      throw new RangeError(`tensor: element ${i}, ${value}, is not an integer from 0 to 255`);
    }
  }
  return dtype === 'bfloat16' ? toBfloat16(numbers) : array.from(numbers);
}
