// Weights in 4 bits as bitsandbytes stores them (QuantState.as_dict of its functional.py, packed): beside the codes, under the weight's name
// and a suffix, largest magnitudes, scales and maps, and a JSON text of the rest. What is not NF4 in blocks of 64 with double quantisation
// is refused by name.
import { brief } from '../brief.ts';
import type { QuantizedWeight } from '../ops/quantized_weight.ts';
import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import { fromFile } from './elements.ts';
import { SafetensorsError, type SafetensorsFile } from './safetensors.ts';

/** Suffixes of the tensors beside the codes. */
const STATE = '.quant_state.bitsandbytes__nf4';
const OTHER_STATE = '.quant_state.bitsandbytes__fp4';
const PARTS = ['.absmax', '.nested_absmax', '.quant_map', '.nested_quant_map', STATE] as const;
/** Far more bytes than the JSON text has. */
const MAX_STATE_BYTES = 65536;

/** The 16 values (appendix E of arXiv 2305.14314). */
const NF4 = [
  -1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105, 0, 0.0795803, 0.1609302, 0.2461123,
  0.3379152, 0.4407098, 0.562617, 0.7229568, 1,
];

/** The signed dynamic map: middles of 2^i equal parts of [0.1, 1] times 10^(i - 6) for i < 7, of both signs; 0 and 1. Ascending. */
function dynamicMap(): number[] {
  const map = [0, 1];
  for (let i = 0; i < 7; i++) {
    for (let j = 0; j < 2 ** i; j++) {
      const middle = 10 ** (i - 6) * (0.1 + (0.9 * (j + 0.5)) / 2 ** i);
      map.push(middle, -middle);
    }
  }
  return map.sort((a, b) => a - b);
}

type Files = ReadonlyMap<string, SafetensorsFile>;

/** Throws unless the files hold the parts of a weight of this shape; returns their names. */
export function requireNf4(files: Files, name: string, shape: readonly number[]): string[] {
  const file = files.get(name)!;
  const fail = (what: string) => new SafetensorsError(`${file.path}: '${name}' ${what}`);
  const { dtype } = file.entries.get(name)!;
  if (files.has(name + OTHER_STATE)) throw fail('is in fp4, which is not supported: nf4 is');
  if (!files.has(name + STATE)) {
    throw fail(
      `is ${dtype} without '${STATE.slice(1)}', and quantization_config says 4 bits: projections that are left out ` +
        '(llm_int8_skip_modules) are not supported',
    );
  }
  if (dtype !== 'U8') throw fail(`has dtype ${dtype}, must be U8 (bnb_4bit_quant_storage 'uint8')`);
  for (const part of PARTS) {
    if (files.has(name + part)) continue;
    const isNested = part.startsWith('.nested');
    throw fail(
      `has no '${part.slice(1)}'${isNested ? ': without double quantisation (bnb_4bit_use_double_quant) it is not supported' : ''}`,
    );
  }
  const size = shape.reduce((product, length) => product * length, 1);
  const numBlocks = Math.ceil(size / 64);
  const required: [suffix: string, dtype: SafetensorsDtype, elements: number][] = [
    ['', 'U8', Math.ceil(size / 2)],
    ['.absmax', 'U8', numBlocks],
    ['.nested_absmax', 'F32', Math.ceil(numBlocks / 256)],
    ['.quant_map', 'F32', NF4.length],
    ['.nested_quant_map', 'F32', 256],
  ];
  for (const [suffix, dtype, elements] of required) {
    const { path, entries } = files.get(name + suffix)!;
    const entry = entries.get(name + suffix)!;
    const found = entry.shape.reduce((product, length) => product * length, 1);
    if (entry.dtype === dtype && found === elements) continue;
    throw new SafetensorsError(
      `${path}: '${name}${suffix}' is ${entry.dtype} of ${found} elements, a weight (${shape}) in NF4 in blocks of 64 needs ${dtype} of ${elements}`,
    );
  }
  return PARTS.map((part) => name + part);
}

/** Writes what the files hold under `name` into the weight. requireNf4() has passed. */
export async function readNf4(files: Files, name: string, weight: QuantizedWeight): Promise<void> {
  const read = (suffix: string) => files.get(name + suffix)!.read(name + suffix);
  const state = await readState(files, name, weight.shape);
  await requireMap(files, `${name}.quant_map`, NF4);
  await requireMap(files, `${name}.nested_quant_map`, dynamicMap());
  const { codes, absmax, scales, offset } = weight.tensors;
  codes.write(await read(''));
  absmax.write(await read('.absmax'));
  scales.write(await read('.nested_absmax'));
  offset.write(Float32Array.of(state));
  await weight.device.synchronize(); // so that only one weight waits for the device at a time
}

/** Checks the JSON text and returns its offset of the largest magnitudes. */
async function readState(files: Files, weight: string, shape: readonly number[]): Promise<number> {
  const name = weight + STATE;
  const file = files.get(name)!;
  const fail = (what: string) => new SafetensorsError(`${file.path}: '${name}' ${what}`);
  const { dtype, bytes } = file.entries.get(name)!;
  if (dtype !== 'U8' || bytes > MAX_STATE_BYTES) throw fail(`is ${dtype} of ${bytes} bytes, must be a JSON text in U8`);
  let state: Record<string, unknown>;
  try {
    state = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(await file.read(name)));
  } catch (error) {
    throw fail(`is not JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  const required = { quant_type: 'nf4', blocksize: 64, shape, nested_blocksize: 256, nested_dtype: 'float32' };
  for (const [field, value] of Object.entries(required)) {
    if (JSON.stringify(state?.[field]) === JSON.stringify(value)) continue;
    throw fail(`says ${field} ${brief(state?.[field])}, must be ${brief(value)}`);
  }
  const { nested_offset: offset } = state;
  if (typeof offset !== 'number' || !Number.isFinite(offset)) {
    throw fail(`says nested_offset ${brief(offset)}, must be a number`);
  }
  return offset;
}

/** Throws unless a table of the file is the one that is computed with, up to rounding. */
async function requireMap(files: Files, name: string, map: readonly number[]): Promise<void> {
  const file = files.get(name)!;
  const bytes = fromFile(name, await file.read(name), 'F32', 'float32');
  const values = new Float32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, map.length);
  const i = map.findIndex((value, i) => !(Math.abs(values[i]! - value) <= 1e-6));
  if (i < 0) return;
  throw new SafetensorsError(
    `${file.path}: '${name}' has ${values[i]} at ${i}, must be ${map[i]}: another map is not supported`,
  );
}
