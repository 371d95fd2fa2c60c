// One case in a process of its own: case.ts NAME DTYPE SIZES_JSON ROUNDS DEVICE [MEMORY_BYTES] → one line of JSON.
import { type DeviceName, type Dtype, openDevice } from '../lib/index.ts';
import { cases, type Sizes } from './cases.ts';

const [name, dtype, sizes, rounds, deviceName, memoryBytes] = process.argv.slice(2) as [
  keyof typeof cases,
  Dtype,
  string,
  string,
  DeviceName,
  string?,
];
const parsed: Sizes = JSON.parse(sizes);
const { hostMemoryLimit } = parsed;
const device = openDevice(deviceName, { hostMemoryLimit, ...(memoryBytes && { memoryLimit: Number(memoryBytes) }) });
console.log(JSON.stringify(await cases[name](device, dtype, parsed, Number(rounds))));
process.exit(0); // tensors end with the process
