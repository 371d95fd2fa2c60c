// Runs any function that treats tokens independently over mini-sequences.

import { Region } from '../autograd/region.ts';
import { isFirstRun, noGrad, operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireCount, rowsAndCols } from './check.ts';

/**
 * Runs `fn` over chunks of the rows of x, so that only one chunk's intermediates exist at a time, in the forward and in the backward. The
 * backward recomputes each chunk up to the last op that saves something. Gradients of parameters used inside add up over the chunks.
 * @param fn takes rows (M,C) of x, and the index of the first of them, and returns (M,C'); each output row depends only on its own input
 *   row. Synchronous, built from this package's ops
 * @param x (…,C), read as rows (N,C)
 * @param options.chunkSize rows M of one chunk; the last may be shorter
 * @returns (N,C')
 */
export function miniSequence(
  fn: (x: Tensor, firstRow: number) => Tensor,
  x: Tensor,
  options: { chunkSize: number },
): Tensor {
  const { chunkSize } = options;
  requireCount('miniSequence', 'chunkSize', chunkSize);
  const [N, C] = rowsAndCols(x);
  if (N === 0) throw new RangeError(`miniSequence: x ${x} has no rows`);
  const regions: Region[] = [];
  return operation({
    name: 'miniSequence',
    inputs: { x },
    saved: { x },
    regions,
    forward() {
      const records = isFirstRun();
      const rows = x.alias().reshape([N, C]);
      let y: Tensor | null = null;
      for (const [begin, end] of chunksOf(N, chunkSize)) {
        const output = tidy(() => {
          const chunk = rows.rows(begin, end);
          if (!records) return noGrad(() => fn(chunk, begin));
          chunk.requiresGrad = x.requiresGrad;
          const region = new Region((rows) => fn(rows!, begin));
          regions.push(region);
          return region.run([chunk]);
        });
        if (output.shape.length !== 2 || output.shape[0] !== end - begin) {
          throw new RangeError(
            `miniSequence: fn got ${end - begin} rows of x and must return as many, got (${output.shape})`,
          );
        }
        y ??= empty([N, output.shape[1]!], { dtype: output.dtype, device: x.device, category: 'activation' });
        kernels.cast(output, y.rows(begin, end));
        output.dispose();
      }
      return { output: y! };
    },
    backward(dy, { x }, gradients) {
      const rows = x.alias().reshape([N, C]);
      const dx = gradients.needs('x')
        ? empty([N, C], { dtype: x.dtype, device: x.device, category: 'activation' })
        : null;
      gradients.overChunks(regions.length, (gradients) => {
        chunksOf(N, chunkSize).forEach(([begin, end], i) => {
          tidy(() => {
            const chunk = rows.rows(begin, end);
            chunk.requiresGrad = dx !== null;
            const [dchunk] = regions[i]!.backward([chunk], dy.rows(begin, end), gradients);
            if (!dx) return;
            if (dchunk) kernels.cast(dchunk, dx.rows(begin, end));
            else kernels.fill(dx.rows(begin, end), 0);
          });
        });
      });
      return { x: dx };
    },
  });
}

/** [begin, end) of each chunk; the last may be shorter. */
function chunksOf(N: number, chunkSize: number): [number, number][] {
  return Array.from({ length: Math.ceil(N / chunkSize) }, (_, i) => [i * chunkSize, Math.min((i + 1) * chunkSize, N)]);
}
