// Low-rank parts of the chunked MLP and of the chunked head: gradients and masks.
import {
  add,
  chunkedCrossEntropy,
  chunkedMlp,
  dropout,
  linear,
  Parameter,
  scale,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, precise, valuesOf, within } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, mlpShapes } from '../support/ops.ts';
import { normals } from '../support/random.ts';

const [N, C, F, r] = [7, 5, 9, 3];

describe('adapters of the chunked MLP', () => {
  const shapes = {
    x: [N, C],
    gate: [F, C],
    up: [F, C],
    down: [C, F],
    ga: [r, C],
    gb: [F, r],
    ua: [2, C],
    ub: [F, 2],
    da: [r, F],
    db: [C, r],
  };
  const names = Object.keys(shapes);
  const mlp =
    (probability: number, which: string[], chunkSize: number, save: 'input' | 'gateUp') =>
    (...inputs: Tensor[]) => {
      const t = Object.fromEntries(names.map((name, i) => [name, inputs[i]!])) as Record<keyof typeof shapes, Tensor>;
      const adapter = (name: string, a: Tensor, b: Tensor, op: number) =>
        which.includes(name) ? { a, b, scale: 0.7, op } : null;
      return chunkedMlp(t.x, t.gate, t.up, t.down, {
        chunkSize,
        save,
        dropout: { probability, seed: 3, step: 5 },
        adapters: {
          gate: adapter('gate', t.ga, t.gb, 11),
          up: adapter('up', t.ua, t.ub, 12),
          down: adapter('down', t.da, t.db, 13),
        },
      });
    };

  for (const probability of [0, 0.4]) {
    for (const [chunkSize, save] of [
      [3, 'input'],
      [N, 'gateUp'],
    ] as const) {
      it(`have the gradients of central differences: dropout ${probability}, chunks of ${chunkSize}`, () =>
        checkGradients(mlp(probability, ['gate', 'up', 'down'], chunkSize, save), Object.values(shapes), {
          tolerance: 1e-7,
        }));
    }
  }

  for (const probability of [0, 0.3]) {
    itIsPrecise(
      `dropout ${probability}`,
      [...mlpShapes(200, 64, 176), [8, 64], [176, 8], [4, 176], [64, 4]],
      (x, g, u, d, ga, gb, da, db) =>
        chunkedMlp(x, g, u, d, {
          chunkSize: 64,
          dropout: { probability, seed: 3, step: 5 },
          adapters: { gate: { a: ga, b: gb, scale: 0.7, op: 1 }, down: { a: da, b: db, scale: 0.7, op: 2 } },
        }),
    );
  }

  it('equal adapters of plain ops with the same masks, any of them, in chunks of any size', async () => {
    const device = debugDevice();
    const mask = { probability: 0.3, seed: 3, step: 5 };
    for (const which of [['gate'], ['up'], ['down'], ['gate', 'up', 'down']]) {
      const values = Object.values(shapes).map((shape, i) => normals(shape[0]! * shape[1]!, 40 + i));
      const dy = normals(N * C, 99);
      const run = async (fn: (...inputs: Tensor[]) => Tensor) => {
        const leaves = values.map(
          (data, i) => new Parameter(tensor(data, { shape: Object.values(shapes)[i]!, dtype: precise, device })),
        );
        const tape = new Tape();
        const y = tape.run(() => fn(...leaves));
        tidy(() => tape.backward(y, tensor(dy, { shape: [N, C], dtype: precise, device })));
        const results = [await valuesOf(y)];
        for (const leaf of leaves) results.push(leaf.grad ? await valuesOf(leaf.grad) : new Float64Array(1));
        for (const each of [y, ...leaves]) each.dispose();
        return results;
      };
      const plain = (...t: Tensor[]) =>
        tidy(() => {
          const [x, gate, up, down, ga, gb, ua, ub, da, db] = t as [
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
          ];
          const projection = (name: string, x: Tensor, w: Tensor, a: Tensor, b: Tensor, op: number) => {
            const base = linear(x, w);
            return which.includes(name) ? add(base, linear(scale(linear(dropout(x, mask, op), a), 0.7), b)) : base;
          };
          const h = swiglu(projection('gate', x, gate, ga, gb, 11), projection('up', x, up, ua, ub, 12));
          return projection('down', h, down, da, db, 13);
        });
      const expected = await run(plain);
      for (const chunkSize of [1, 3, N, N + 5]) {
        for (const save of ['input', 'gateUp'] as const) {
          const found = await run(mlp(0.3, which, chunkSize, save));
          for (const [i, each] of found.entries()) {
            assertClose(
              each,
              expected[i]!,
              within({ float64: 1e-12, float32: 2e-6 }),
              `${which} ${i === 0 ? 'y' : names[i - 1]}`,
            );
          }
        }
      }
    }
  });
});

describe('a low-rank part of the head', () => {
  it('has the gradients of central differences', () =>
    checkGradients(
      (h, w, low, b) =>
        tidy(
          () =>
            chunkedCrossEntropy(h, w, tensor(Int32Array.of(0, 3, -100, 2, 1, 4, 3), { device: debugDevice() }), {
              chunkSize: 3,
              softcap: 2,
              labelSmoothing: 0.1,
              lowRank: { low, weight: b },
            }).loss,
        ),
      [
        [N, C],
        [6, C],
        [N, r],
        [6, r],
      ],
      { tolerance: 1e-7 },
    ));
});
