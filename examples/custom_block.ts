// A block of one's own as a mini-sequence: a gated MLP with two gates, written with plain ops and wrapped in `miniSequence`.
//   npx tsx examples/custom_block.ts
import { pathToFileURL } from 'node:url';
import {
  AdamW,
  add,
  type Device,
  geglu,
  linear,
  miniSequence,
  openDevice,
  Parameter,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
} from 'minisequence';

/** Weights: gates and up (F,C), down (C,F). */
export interface TwoGates {
  siluGate: Parameter;
  geluGate: Parameter;
  up: Parameter;
  down: Parameter;
}

/** down( (silu(x·siluGateᵀ) + gelu(x·geluGateᵀ)) * (x·upᵀ) ): (N,C) from (N,C), every row from itself alone. */
export function twoGateMlp(x: Tensor, { siluGate, geluGate, up, down }: TwoGates): Tensor {
  return tidy(() => {
    const value = linear(x, up);
    const gated = add(swiglu(linear(x, siluGate), value), geglu(linear(x, geluGate), value));
    return linear(gated, down);
  });
}

/** The same numbers with the intermediates of one chunk at a time, forward and backward. */
export function chunkedTwoGateMlp(x: Tensor, weights: TwoGates, chunkSize: number): Tensor {
  return miniSequence((rows) => twoGateMlp(rows, weights), x, { chunkSize });
}

/** Random weights, small enough for a stable start. */
export function makeTwoGates(device: Device, C: number, F: number): TwoGates {
  const make = (rows: number, cols: number) => {
    const values = Float32Array.from({ length: rows * cols }, () => (Math.random() - 0.5) / Math.sqrt(cols));
    return new Parameter(tensor(values, { shape: [rows, cols], device }));
  };
  return { siluGate: make(F, C), geluGate: make(F, C), up: make(F, C), down: make(C, F) };
}

/** Teaches the block to double its input, and tells loss and peak memory. */
async function main(): Promise<void> {
  const [N, C, F] = [4096, 64, 512];
  using device = openDevice('cpu');
  const weights = makeTwoGates(device, C, F);
  using optimizer = new AdamW(Object.values(weights), { weightDecay: 0 });
  const x = tensor(
    Float32Array.from({ length: N * C }, () => Math.random() - 0.5),
    { shape: [N, C], device },
  );
  for (const [name, block] of [
    ['whole', (x: Tensor) => twoGateMlp(x, weights)],
    ['in chunks of 256', (x: Tensor) => chunkedTwoGateMlp(x, weights, 256)],
  ] as const) {
    device.arena.resetPeak();
    let loss = 0;
    for (let step = 0; step < 20; step++) {
      const tape = new Tape();
      const y = tape.run(() => block(x));
      const [found, wanted] = [await y.toFloat32(), await x.toFloat32()];
      const dy = found.map((value, i) => (value - 2 * wanted[i]!) / N); // of half the squared error
      loss = dy.reduce((sum, value) => sum + value * value * N, 0) / 2;
      tidy(() => tape.backward(y, tensor(dy, { shape: [N, C], device })));
      optimizer.step(3e-3);
      for (const weight of Object.values(weights)) weight.zeroGrad();
      y.dispose();
    }
    console.log(`${name}: loss ${loss.toFixed(3)}, peak ${(device.memory().peakBytes / 2 ** 20).toFixed(1)} MiB`);
  }
  for (const weight of [x, ...Object.values(weights)]) weight.dispose();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
