// Pairs of variants of the same work, timed in turn in one process: their ratio holds on a noisy machine too.
import { type Device, type Parameter, Tape, type Tensor, tidy } from '../lib/index.ts';

/** One way to do the work: forward and backward, results disposed. */
export interface Variant {
  name: string;
  run(): void;
}

export interface Measurement {
  name: string;
  /** Most bytes held above the inputs, gradients of weights included. */
  peakBytes: number;
  /** Of `peakBytes`, the gradients of weights, in f32: outputs, where the rest is workspace. */
  weightGradientBytes?: number;
  /** The peak that simulateStep predicted, and the bytes that the driver counts as used at the end, by all processes of the GPU. */
  plannedBytes?: number;
  usedBytes?: number;
  /** Median over the rounds. */
  milliseconds: number;
  /** Median over the rounds of this variant's time to the first one's in the same round. */
  ratio: number;
  /** Operations of 10^12 a second, where a case counts them. */
  teraflops?: number;
}

/** Runs the variants in turn, `rounds` times after one round of warm-up. Memory is read in the warm-up, before anything is timed. */
export async function measure(
  device: Device,
  variants: readonly Variant[],
  rounds: number,
  weights: readonly Tensor[],
): Promise<Measurement[]> {
  const peaks: number[] = [];
  for (const { run } of variants) {
    const before = device.memory().liveBytes;
    device.arena.resetPeak();
    tidy(run);
    await device.synchronize();
    peaks.push(device.memory().peakBytes - before);
  }
  const times: number[][] = variants.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, { run }] of variants.entries()) {
      const start = performance.now();
      tidy(run);
      await device.synchronize();
      times[i]!.push(performance.now() - start);
    }
  }
  return variants.map(({ name }, i) => ({
    name,
    peakBytes: peaks[i]!,
    weightGradientBytes: weights.reduce((sum, weight) => sum + gradientBytes(weight), 0),
    milliseconds: median(times[i]!),
    ratio: median(times[i]!.map((time, round) => time / times[0]![round]!)),
  }));
}

function gradientBytes({ size, dtype }: Tensor): number {
  return size * (dtype === 'float64' ? 8 : 4);
}

/** Forward and backward of `fn`, with a given gradient of the output; the parameters' gradients are freed. */
export function forwardBackward(fn: () => Tensor, dy: Tensor | null, parameters: readonly Parameter[]): void {
  const tape = new Tape();
  const y = tape.run(fn);
  tape.backward(y, dy);
  y.dispose();
  for (const parameter of parameters) parameter.zeroGrad();
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The line of a failed program's output that says what went wrong. */
export function errorLine(words: string): string {
  const lines = words.trim().split('\n');
  return lines.findLast((line) => /^\S*(Error|Exception)\b/.test(line)) ?? lines.at(-1)!;
}
