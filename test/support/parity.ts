// Compares the decoder with a case made by PyTorch and transformers: loss, every gradient, and the losses of a short training.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AdamW,
  type Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  type GradientDtype,
  type HostBatch,
  nextToken,
  type StateBits,
  type StepPolicy,
  Tape,
  TrainStep,
  tidy,
} from '../../lib/index.ts';
import { SafetensorsFile } from '../../lib/io/safetensors.ts';
import { loadModel } from '../../lib/io/weights.ts';
import { toDevice } from '../../lib/models/batch.ts';
import { relativeError } from './compare.ts';

interface Expected {
  oneStep: { inputIds: number[][]; labels: number[][]; loss: number; gradNorm: number };
  training: {
    hyperparameters: {
      lr: number;
      beta1: number;
      beta2: number;
      eps: number;
      weightDecay: number;
      maxGradNorm: number;
      steps: number;
    };
    batches: number[][][];
    losses: number[];
    gradNorms: number[];
  };
}

/** Relative errors of one case. */
export interface ParityErrors {
  loss: number;
  /** The worst tensor's, and its name. */
  gradient: number;
  worstGradient: string;
  losses: number;
  gradNorms: number;
}

const bfloat16 = { loss: 2e-4, gradient: 6e-2, losses: 6e-3, gradNorms: 6e-2 };
/** Limits for f32 against PyTorch's f32 on the CPU, and for bf16; by the kind of device. */
export const parityLimits = {
  cpu: { float32: { loss: 2e-6, gradient: 1e-5, losses: 5e-6, gradNorms: 1e-4 }, bfloat16 },
  cuda: { float32: { loss: 1e-5, gradient: 5e-5, losses: 2e-5, gradNorms: 1e-4 }, bfloat16 },
};

/**
 * The limits of a case. In bf16 a mixture of experts gives a token to another expert where two are about as probable, and each expert of these
 * small models has few tokens.
 */
export function limitsOf(
  folder: string,
  kind: keyof typeof parityLimits,
  dtype: 'float32' | 'bfloat16',
): (typeof parityLimits)['cpu']['bfloat16'] {
  const limits = parityLimits[kind][dtype];
  const { layers } = decoderConfig(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')));
  const isMixture = layers.some(({ mlp }) => mlp.experts);
  return isMixture && dtype === 'bfloat16' ? { ...limits, gradient: 0.4 } : limits;
}

/** Folders below `root` that hold a case. */
export function parityCases(root: string): string[] {
  if (existsSync(join(root, 'expected.json')) && existsSync(join(root, 'config.json'))) return [root];
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => parityCases(join(root, entry.name)))
    .sort();
}

const IGNORED = -100;

/** Labels are unshifted: position t predicts label t + 1, and the last position nothing. */
function makeBatch(inputIds: number[][], labels: number[][]): HostBatch {
  const targets = labels.flatMap((row) => [...row.slice(1), IGNORED]);
  return { inputs: inputIds.flat(), targets, T: inputIds[0]!.length };
}

/** Runs one case under a policy. */
export async function runParityCase(
  folder: string,
  device: Device,
  policy: StepPolicy,
  dtype: Dtype = 'float32',
  gradientDtype: GradientDtype = 'float32',
): Promise<ParityErrors> {
  const load = () => loadModel(folder, { device, dtype, gradientDtype });
  const { oneStep, training } = expectedOf(folder);
  const one = await runOneStep(folder, await load(), policy, oneStep);
  const twenty = await runTraining(await load(), policy, training);
  return { ...one, ...twenty };
}

async function runOneStep(
  folder: string,
  model: Decoder,
  policy: StepPolicy,
  { inputIds, labels, loss: expectedLoss }: Expected['oneStep'],
): Promise<Pick<ParityErrors, 'loss' | 'gradient' | 'worstGradient'>> {
  const batch = makeBatch(inputIds, labels);
  const objective = nextToken();
  const tape = new Tape();
  const loss = tidy(() => {
    const made = toDevice(batch, model.device);
    return tape.run(() => objective.loss(model, made, { policy, divisor: objective.count(batch) }));
  });
  tape.backward(loss);
  const lossError = Math.abs((await loss.item()) - expectedLoss) / Math.abs(expectedLoss);
  loss.dispose();
  const file = await SafetensorsFile.open(join(folder, 'gradients.safetensors'));
  let gradient = 0;
  let worstGradient = '';
  for (const [name, parameter] of model.namedParameters()) {
    if (!parameter.grad) throw new Error(`${folder}: ${name} has no gradient`);
    const expected = new Float32Array((await file.read(name)).buffer);
    const error = relativeError(await parameter.grad.toFloat32(), expected);
    if (!(error <= gradient)) [gradient, worstGradient] = [error, name];
  }
  await file.close();
  model.dispose();
  return { loss: lossError, gradient, worstGradient };
}

/** Losses of a case's short training in f32, under optimizer states of so many bits. */
export async function trainingLosses(
  folder: string,
  device: Device,
  policy: StepPolicy,
  stateBits: StateBits,
): Promise<number[]> {
  const { losses } = await train(await loadModel(folder, { device }), policy, expectedOf(folder).training, stateBits);
  return losses;
}

const expectedOf = (folder: string): Expected => JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8'));

async function runTraining(
  model: Decoder,
  policy: StepPolicy,
  training: Expected['training'],
): Promise<Pick<ParityErrors, 'losses' | 'gradNorms'>> {
  const { losses, gradNorms } = await train(model, policy, training);
  return { losses: relativeError(losses, training.losses), gradNorms: relativeError(gradNorms, training.gradNorms) };
}

/** Trains the model and disposes it. */
async function train(
  model: Decoder,
  policy: StepPolicy,
  training: Expected['training'],
  stateBits: StateBits = 32,
): Promise<Record<'losses' | 'gradNorms', number[]>> {
  const { lr, maxGradNorm, steps, ...options } = training.hyperparameters;
  const optimizer = new AdamW(model.trainableParameters(), { ...options, stateBits });
  const losses: number[] = [];
  const gradNorms: number[] = [];
  const trainStep = new TrainStep(model, optimizer, { policy, maxGradNorm });
  for (let step = 0; step < steps; step++) {
    const ids = training.batches[step % training.batches.length]!;
    const { loss, gradNorm } = await trainStep.run([makeBatch(ids, ids)], { learningRate: lr });
    losses.push(await loss);
    gradNorms.push(await gradNorm);
  }
  trainStep.dispose();
  optimizer.dispose();
  model.dispose();
  return { losses, gradNorms };
}
