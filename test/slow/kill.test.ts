// SIGKILL at random moments, again and again: every restart goes on, and the losses are those of an uninterrupted run.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { uniforms } from '../../lib/data/shuffle.ts';
import type { RunConfigInput } from '../../lib/index.ts';
import { linesOf, newFolder, textFile, tinyRun } from '../support/runs.ts';

const kinds: { name: string; kills: number; options: Partial<RunConfigInput> }[] = [
  { name: 'f32', kills: 50, options: {} },
  {
    name: 'bf16 without masters, 8-bit states, step in the backward',
    kills: 12,
    options: {
      dtype: 'bfloat16',
      masterWeights: false,
      optimizer: { learningRate: 3e-3, stateBits: 8, inBackward: true },
      maxGradNorm: 0.5,
    },
  },
  {
    name: 'bf16 without masters, 8-bit states, step in the backward, inputs of layers in host memory',
    kills: 12,
    options: {
      dtype: 'bfloat16',
      masterWeights: false,
      optimizer: { learningRate: 3e-3, stateBits: 8, inBackward: true },
      maxGradNorm: 0.5,
      recompute: 'layer',
      offloadedInputs: 2,
      hostMemoryLimit: '1MiB',
    },
  },
];
/** Longer than a start takes, so that kills fall into loading, steps, checkpoints and validation. */
const LONGEST_LIFE = 1500;

/** Runs the command line and kills it after so many milliseconds; null: lets it end. Returns whether it was killed. */
async function life(config: string, milliseconds: number | null): Promise<boolean> {
  const child = spawn(process.execPath, ['dist/cli/main.js', 'train', '--config', config, '--resume', '--json'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let problem = '';
  child.stderr.on('data', (chunk: Buffer) => {
    problem += chunk;
  });
  const timer = milliseconds === null ? null : setTimeout(() => child.kill('SIGKILL'), milliseconds);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (timer) clearTimeout(timer);
  assert.ok(signal === 'SIGKILL' || code === 0, problem);
  return signal === 'SIGKILL';
}

describe('a run that is killed', () => {
  for (const { name, kills: numKills, options: more } of kinds) {
    it(`${numKills} times ends with the losses of one that is not: ${name}`, async () => {
      const outDirs = [newFolder(), newFolder()];
      const validation = { files: [textFile('zyx wvu '.repeat(40))] };
      const text = textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(400));
      const [whole, killed] = await Promise.all(
        outDirs.map(async (outDir) => {
          const path = join(newFolder(), 'run.yaml');
          const options = {
            data: { files: [text], validation },
            maxSteps: 50 * numKills,
            threads: 1,
            checkpoint: { everySteps: 10 },
            evaluation: { everySteps: 25 },
            outDir,
            ...more,
          };
          await writeFile(path, JSON.stringify(tinyRun(options)));
          return path;
        }),
      );
      await life(whole!, null);
      const random = uniforms(1, 1);
      for (let kills = 0; kills < numKills; ) if (await life(killed!, random() * LONGEST_LIFE)) kills += 1;
      await life(killed!, null);
      assert.deepEqual(await linesOf(outDirs[1]!), await linesOf(outDirs[0]!));
      const bytes = (folder: string) => readFile(join(folder, 'model.safetensors'));
      assert.ok((await bytes(outDirs[1]!)).equals(await bytes(outDirs[0]!)));
    }).timeout(600_000);
  }
});
