// What a step reserves at each of several lengths, for each way to trade memory for operations.
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import { type PlanOptions, plainPolicy, policiesOf } from './plan.ts';
import { simulateStep } from './simulate.ts';

/** Bytes that a step reserves, for each length. */
export interface MemoryByLength {
  lengths: number[];
  /** Everything saved, nothing chunked. */
  plain: number[];
  /** Nothing chunked, each layer computed again from its input. */
  recomputation: number[];
  /** The planner's smallest policy of each kind, from the fastest to the smallest; null at a length without such a policy. */
  rungs: { recompute: StepPolicy['recompute']; mlpSave: StepPolicy['mlpSave']; bytes: (number | null)[] }[];
}

/** Runs steps on `meta`, without limits of memory and without host memory. */
export function memoryByLength(
  config: DecoderConfig,
  options: Omit<PlanOptions, 'T' | 'memoryLimit' | 'hostMemoryLimit'>,
  lengths: readonly number[],
): MemoryByLength {
  const { B, fixed = {}, ...rest } = options;
  const reserved = (T: number, policy: StepPolicy) => simulateStep({ config, B, T, policy, ...rest }).reservedBytes;
  const all: MemoryByLength = { lengths: [...lengths], plain: [], recomputation: [], rungs: [] };
  for (const [i, T] of lengths.entries()) {
    const plain = plainPolicy(B * T);
    all.plain.push(reserved(T, plain));
    all.recomputation.push(reserved(T, { ...plain, recompute: 'layer', mlpSave: 'input' }));
    const smallest = new Map<string, StepPolicy>();
    for (const policy of policiesOf(config, B * T, fixed, { T, ...rest, hostMemoryLimit: 0 })) {
      smallest.set(`${policy.recompute} ${policy.mlpSave}`, policy);
    }
    for (const policy of smallest.values()) {
      const { recompute, mlpSave } = policy;
      let rung = all.rungs.find((one) => one.recompute === recompute && one.mlpSave === mlpSave);
      if (!rung) {
        rung = { recompute, mlpSave, bytes: lengths.map(() => null) };
        all.rungs.push(rung);
      }
      rung.bytes[i] = reserved(T, policy);
    }
  }
  return all;
}
