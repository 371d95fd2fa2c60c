// npm run parity -- DIR [--json] [--device cpu|cuda] [--dtype float32|bfloat16]
// Runs every case found below DIR and prints its worst errors over all policies. Exits 1 if one fails or none is found.
import { parseArgs } from 'node:util';
import { type DeviceName, openDevice, type StepPolicy } from '../../lib/index.ts';
import { limitsOf, type ParityErrors, parityCases, runParityCase } from './parity.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    device: { type: 'string', default: 'cpu' },
    dtype: { type: 'string', default: 'float32' },
  },
});
const [root] = positionals;
if (!root) {
  console.error('usage: npm run parity -- DIR [--json] [--device NAME] [--dtype float32|bfloat16]');
  process.exit(2);
}
const device = openDevice(values.device as DeviceName);
const dtype = values.dtype as 'float32' | 'bfloat16';
const policies: StepPolicy[] = [
  { mlpChunkSize: 2 ** 30, lossChunkSize: 2 ** 30, mlpSave: 'gateUp', recompute: 'none' },
  { mlpChunkSize: 29, lossChunkSize: 37, mlpSave: 'input', recompute: 'attention' },
  { mlpChunkSize: 13, lossChunkSize: 31, mlpSave: 'input', recompute: 'layer' },
];

const report: ({ case: string; passed: boolean; limits: ReturnType<typeof limitsOf> } & Omit<
  ParityErrors,
  'worstGradient'
>)[] = [];
const cases = parityCases(root);
for (const folder of cases) {
  const limits = limitsOf(folder, device.target.kind, dtype);
  const worst = { loss: 0, gradient: 0, losses: 0, gradNorms: 0 };
  const keys = Object.keys(worst) as (keyof typeof worst)[];
  for (const policy of policies) {
    const errors = await runParityCase(folder, device, policy, dtype);
    for (const key of keys) if (!(errors[key] <= worst[key])) worst[key] = errors[key];
  }
  const passed = keys.every((key) => worst[key] <= limits[key]);
  report.push({ case: folder, passed, limits, ...worst });
  if (!values.json) {
    const figures = keys.map((key) => `${key} ${worst[key].toExponential(1)}`).join('  ');
    console.log(`${passed ? 'passed' : 'FAILED'}  ${folder}  ${figures}`);
  }
}
if (values.json) console.log(JSON.stringify({ cases: report }, null, 2));
if (cases.length === 0) console.error(`parity: no case below ${root}`);
process.exitCode = cases.length > 0 && report.every(({ passed }) => passed) ? 0 : 1;
