// Loss and gradients of a batch whose sequences several ranks share, beside those of one rank.
import {
  addLora,
  Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  type HostBatch,
  type HuggingFaceConfig,
  nextToken,
  openDevice,
  ProcessGroup,
  RankStore,
  type StepPolicy,
  Tape,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { toDevice } from '../../lib/models/batch.ts';
import { sequencePart } from '../../lib/models/sequence_part.ts';
import { assertClose } from './compare.ts';
import { integers, normals } from './random.ts';
import { onRanks } from './ranks.ts';

export interface SequenceCase {
  source: HuggingFaceConfig;
  policy: StepPolicy;
  B?: number;
  T?: number;
  isPacked?: boolean;
  hasLora?: boolean;
  /** The first target that counts; with many, some ranks have none. */
  firstTarget?: number;
  dtype?: Dtype;
}

type Values = Map<string, ArrayLike<number>>;

function modelOf({ source, hasLora, dtype = 'float64' }: SequenceCase, device: Device): Decoder {
  const model = new Decoder(decoderConfig(source), { device, dtype }).initialize(1);
  if (hasLora) {
    addLora(model, { rank: 2, modules: LORA_MODULES, dropout: 0.3 });
    let seed = 7;
    for (const { b } of model.lora!.adapters.values()) {
      const values = normals(b.size, seed++, 0.1);
      b.write(dtype === 'float64' ? values : Float32Array.from(values));
    }
  }
  return model;
}

function batchOf({ source, B = 2, T = 13, isPacked, firstTarget = 0 }: SequenceCase): HostBatch {
  const V = source.vocab_size as number;
  const targets = integers(B * T, V, 2).map((id, n) => (n % T < firstTarget ? -100 : id));
  const documentStart = isPacked ? Int32Array.from({ length: B * T }, (_, n) => n - ((n % T) % 5)) : null;
  return { inputs: integers(B * T, V, 1), targets, T, documentStart };
}

/** @param group null: this process has the whole batch */
async function valuesOf(each: SequenceCase, device: Device, group: ProcessGroup | null): Promise<Values> {
  const whole = batchOf(each);
  const objective = nextToken();
  const divisor = objective.count(whole);
  const part = group ? sequencePart(whole, { first: 0, size: group.size, rank: group.rank }) : whole;
  const model = modelOf(each, device);
  const batch = toDevice(part, device);
  const tape = new Tape();
  const context = { policy: each.policy, divisor, dropout: { seed: 3, step: 4 } };
  const loss = tape.run(() => objective.loss(model, batch, context));
  tape.backward(loss);
  group?.allReduce(loss);
  const values: Values = new Map([['loss', [await loss.item()]]]);
  for (const parameter of model.trainableParameters()) {
    group?.allReduce(parameter.grad!);
    values.set(parameter.name!, (await parameter.grad!.data()) as Float64Array);
  }
  for (const tensor of [batch.inputs, batch.targets, batch.documentStart, batch.sequence?.documentStart])
    tensor?.dispose();
  for (const each of [model, loss]) each.dispose();
  if (device.memory().liveBytes !== 0) throw new Error(`${device.memory().liveBytes} bytes are left`);
  return values;
}

/** What each of `size` CPU ranks makes of a group. */
export function inGroups<Result>(
  size: number,
  work: (group: ProcessGroup, device: Device) => Promise<Result>,
): Promise<Result[]> {
  return onRanks(size, async (place) => {
    const store = await RankStore.connect(place, { version: '1' });
    using device = openDevice('cpu', { threads: 1, memoryLimit: 2 ** 28 });
    try {
      using group = await ProcessGroup.join(store, device);
      const result = await work(group, device);
      await store.leave();
      return result;
    } finally {
      store.close();
    }
  });
}

/** Fails unless loss and gradients of `size` ranks that share sequences are those of one rank, for each case. */
export async function requireEqual(
  size: number,
  cases: Readonly<Record<string, SequenceCase>>,
  tolerance: number,
): Promise<void> {
  using device = openDevice('cpu', { threads: 1 });
  const all = Object.entries(cases);
  const found = await inGroups(size, async (group, device) => {
    const values: Values[] = [];
    for (const [, each] of all) values.push(await valuesOf(each, device, group));
    return values;
  });
  for (const [i, [name, each]] of all.entries()) {
    const expected = await valuesOf(each, device, null);
    for (const [rank, values] of found.entries()) {
      for (const [key, value] of values[i]!) {
        assertClose(value, expected.get(key)!, tolerance, `${name}, rank ${rank} of ${size}: ${key}`);
      }
    }
  }
}
