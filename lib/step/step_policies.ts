// Gives each step its policy: a fixed one, or one planned for the batches as they come.
import type { HostBatch } from '../models/batch.ts';
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { Objective } from '../objectives/objective.ts';
import { AdamW } from '../optim/adamw.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import { type PlanOptions, planStep } from './plan.ts';

type OptimizerSettings = Pick<PlanOptions, 'masterWeights' | 'stateBits' | 'makeOptimizer'>;
type Planned = Required<Pick<PlanOptions, 'B' | 'T' | 'isPacked' | 'accumulationSteps'>>;

/** Plans for steps of this model on its device, within the device's memoryLimit and hostMemoryLimit. */
function planModelStep(
  model: Decoder,
  options: Omit<PlanOptions, 'dtype' | 'gradientDtype' | 'lora' | 'like' | 'memoryLimit' | 'hostMemoryLimit'>,
): StepPolicy {
  const { device, dtype, gradientDtype } = model;
  const { target: like, memoryLimit } = device;
  const limits = { memoryLimit, hostMemoryLimit: device.host.limit };
  return planStep(model.config, { ...options, dtype, gradientDtype, lora: model.lora?.layout, like, ...limits }).policy;
}

export class StepPolicies {
  readonly #model: Decoder;
  readonly #optimizer: Optimizer;
  readonly #objective: Objective;
  readonly #given: StepPolicy | null;
  readonly #inBackward: boolean;
  readonly #planned: { batches: Planned; policy: StepPolicy }[] = [];

  constructor(
    model: Decoder,
    optimizer: Optimizer,
    objective: Objective,
    { given, inBackward }: { given: StepPolicy | null; inBackward: boolean },
  ) {
    this.#model = model;
    this.#optimizer = optimizer;
    this.#objective = objective;
    this.#given = given;
    this.#inBackward = inBackward;
  }

  /** Policy of a step of these micro-batches. Plans only if no earlier plan was for batches at least as large. */
  of(microBatches: readonly HostBatch[]): StepPolicy {
    if (this.#given) return this.#given;
    const batches = shapeOf(microBatches);
    const before = this.#planned.find((planned) => covers(planned.batches, batches));
    if (before) return before.policy;
    const optimizer = this.#optimizer;
    const settings: OptimizerSettings =
      optimizer instanceof AdamW ? optimizer.options : { makeOptimizer: (parameters) => optimizer.like(parameters) };
    const { masterWeights, stateBits, makeOptimizer } = settings;
    const objective = this.#objective;
    const inBackward = this.#inBackward;
    const ofStep = { objective, masterWeights, stateBits, makeOptimizer, inBackward };
    const policy = planModelStep(this.#model, { ...batches, ...ofStep });
    this.#planned.push({ batches, policy });
    return policy;
  }
}

function shapeOf(microBatches: readonly HostBatch[]): Planned {
  const N = Math.max(...microBatches.map(({ inputs }) => inputs.length));
  const T = Math.max(...microBatches.map(({ T, inputs }) => T ?? inputs.length));
  const isPacked = microBatches.some(({ documentStart }) => documentStart);
  return { B: Math.ceil(N / T), T, isPacked, accumulationSteps: microBatches.length };
}

/** Whether a step of shape `b` takes no more memory than one of shape `a`, but for the workspace of one product. */
function covers(a: Planned, b: Planned): boolean {
  const isSmaller = b.T <= a.T && b.B * b.T <= a.B * a.T && (a.isPacked || !b.isPacked);
  return isSmaller && (a.accumulationSteps > 1 || b.accumulationSteps === 1);
}
