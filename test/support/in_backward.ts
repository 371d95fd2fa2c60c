// Models, batches and watched optimizers for tests of the optimizer step inside the backward.
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  decoderConfig,
  type HostBatch,
  type Objective,
  type Optimizer,
  type Parameter,
  type SimulatedStep,
  scale,
  type Tensor,
  TrainStep,
  type TrainStepOptions,
  toBfloat16,
  type UpdateOptions,
} from '../../lib/index.ts';
import { nextToken } from '../../lib/objectives/next_token.ts';
import { openTestDevice, testDevice } from './devices.ts';
import { integers } from './random.ts';

export const fields = {
  model_type: 'llama',
  hidden_size: 48,
  intermediate_size: 112,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 128,
  tie_word_embeddings: false,
};
export const [C, F, V] = [48, 112, 128];
export const T = 77;
/** Of the test of failures: what a step takes and some more. Products on CUDA have a workspace of 32 MiB. */
export const MEMORY_LIMIT = testDevice === 'cpu' ? 2 ** 24 : 2 ** 27;
export const policy = { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'attention' } as const;

export interface Case
  extends Pick<SimulatedStep, 'dtype' | 'gradientDtype' | 'masterWeights' | 'stateBits' | 'isPacked'> {
  tied?: boolean;
  lora?: boolean;
  /** Whether MLPs are mixtures of experts. */
  experts?: boolean;
  /** @default 2 */
  layers?: number;
  policy?: SimulatedStep['policy'];
}

export const lora = { rank: 4, alpha: 16, dropout: 0.25 };
export const cases: Record<string, Case> = {
  f32: {},
  'f32, tied, 8-bit states': { tied: true, stateBits: 8 },
  'f32, packed, 16-bit states': { isPacked: true, stateBits: 16 },
  'f32, LoRA with dropout': { lora: true },
  'f32, tied, one chunk, all kept': {
    tied: true,
    policy: { mlpChunkSize: T, lossChunkSize: T, mlpSave: 'gateUp', recompute: 'none' },
  },
  'bf16, master weights': { dtype: 'bfloat16' },
  'bf16, tied, 16-bit states, layers recomputed': {
    dtype: 'bfloat16',
    tied: true,
    stateBits: 16,
    policy: { ...policy, recompute: 'layer' },
  },
  'bf16 rounded at random, 8-bit states, packed': {
    dtype: 'bfloat16',
    masterWeights: false,
    stateBits: 8,
    isPacked: true,
  },
  'bf16 gradients, tied': { dtype: 'bfloat16', gradientDtype: 'bfloat16', masterWeights: false, tied: true },
  'bf16, segments of five layers': {
    dtype: 'bfloat16',
    masterWeights: false,
    tied: true,
    layers: 5,
    policy: { ...policy, recompute: 'segments', slots: 3 },
  },
  'f32, experts': { experts: true, stateBits: 8 },
  'bf16 gradients, experts': { dtype: 'bfloat16', gradientDtype: 'bfloat16', masterWeights: false, experts: true },
  'bf16, LoRA with dropout, packed': { dtype: 'bfloat16', lora: true, stateBits: 8, isPacked: true },
};

/** One sequence, every third target ignored. */
export function batchOf(seed: number, isPacked = false): HostBatch {
  const targets = integers(T, V, seed + 1).map((id, i) => (i % 3 === 0 ? -100 : id));
  const documentStart = isPacked ? Int32Array.from({ length: T }, (_, t) => (t < 30 ? 0 : 30)) : null;
  return { inputs: integers(T, V, seed), targets, T, documentStart };
}

const mixture = { model_type: 'mixtral', num_local_experts: 4, num_experts_per_tok: 2 };

export const configOf = ({ tied = false, layers = 2, experts = false }: Case) =>
  decoderConfig({
    ...fields,
    ...(experts ? mixture : {}),
    num_hidden_layers: layers,
    tie_word_embeddings: tied,
  });

export async function withStep<R>(
  options: TrainStepOptions,
  fn: (step: TrainStep, model: Decoder, optimizer: AdamW) => Promise<R>,
  {
    tied,
    layers,
    experts,
    lora: isLora,
    policy: fixed = policy,
    device: shared,
    ...of
  }: Case & { device?: Device } = {},
): Promise<R> {
  const device = shared ?? openTestDevice();
  try {
    const { dtype, gradientDtype, masterWeights, stateBits } = of;
    const config = configOf({ tied, layers, experts });
    using model = new Decoder(config, { device, dtype, gradientDtype }).initialize(1);
    if (isLora) {
      for (const { b } of addLora(model, lora).adapters.values()) {
        const values = Float32Array.from(integers(b.size, 100, 9), (value) => value / 100 - 0.5);
        b.write(dtype === 'bfloat16' ? toBfloat16(values) : values);
      }
    }
    using optimizer = new AdamW(model.trainableParameters(), { masterWeights, stateBits });
    using step = new TrainStep(model, optimizer, { policy: fixed, ...options });
    return await fn(step, model, optimizer);
  } finally {
    if (!shared) device.close();
  }
}

export const tensorsOf = (model: Decoder, optimizer: Optimizer) => [
  ...model.parameters(),
  ...[...optimizer.state()].map(([, each]) => each),
];
export const bytesOf = (tensors: Iterable<Tensor>) => Promise.all([...tensors].map((each) => each.data()));

/** Everything that three steps leave: their numbers, parameters and states. */
export async function threeSteps(options: TrainStepOptions, of: Case) {
  return await withStep(
    { maxGradNorm: 0, seed: 3, ...options },
    async (step, model, optimizer) => {
      const numbers: unknown[] = [];
      for (const seed of [1, 3, 5]) {
        const { loss, gradNorm, squares } = await step.run([batchOf(seed, of.isPacked)], { learningRate: 1e-2 });
        numbers.push(await loss, await gradNorm, await squares());
      }
      return [numbers, await bytesOf(tensorsOf(model, optimizer))];
    },
    of,
  );
}

/** Makes a loss infinite in f32. */
export const INFINITE = 1e39;

/** The next-token loss times a factor that a test changes. */
export class Factored implements Objective {
  factor = 1;
  readonly #inner = nextToken();
  count(batch: HostBatch) {
    return this.#inner.count(batch);
  }
  loss(...[model, batch, options]: Parameters<Objective['loss']>) {
    return scale(this.#inner.loss(model, batch, options), this.factor);
  }
}

/** An optimizer that keeps the factors on gradients, and calls a function before each update. */
export class Watched implements Optimizer {
  readonly parameters: readonly Parameter[];
  readonly factors: Promise<number>[] = [];
  beforeStep: () => void = () => {};
  before: (numUpdated: number) => void = () => {};
  #numUpdated = 0;
  readonly #inner: AdamW;
  constructor(inner: AdamW) {
    this.#inner = inner;
    this.parameters = inner.parameters;
  }
  beginStep(options: UpdateOptions) {
    this.beforeStep();
    this.factors.length = 0;
    this.#numUpdated = 0;
    this.#inner.beginStep(options);
  }
  update(parameter: Parameter, options: UpdateOptions) {
    this.before(this.#numUpdated++);
    this.#inner.update(parameter, options);
    this.factors[this.parameters.indexOf(parameter)] = options.gradientFactor!.item();
  }
  step(learningRate: number, gradientFactor?: Tensor | null) {
    this.#inner.step(learningRate, gradientFactor);
  }
  state() {
    return this.#inner.state();
  }
  like(parameters: readonly Parameter[]) {
    return this.#inner.like(parameters);
  }
  dispose() {}
}
