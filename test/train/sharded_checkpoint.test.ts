// Checkpoints that several ranks write: whole, or not there.
import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AdamW, Decoder, decoderConfig, openDevice, parseConfig } from '../../lib/index.ts';
import { Checkpoints } from '../../lib/train/checkpoint.ts';
import { RunRanks } from '../../lib/train/run_ranks.ts';
import type { RunState } from '../../lib/train/run_state.ts';
import { itOnCpuRanks, onRanks } from '../support/ranks.ts';
import { newFolder, tinyLlama, tinyRun } from '../support/runs.ts';

const beside = { tokenizerFrom: null, chatTemplate: null };
const stateOf = (step: number) => ({ step, best: null }) as RunState;

/** What each of two ranks does with checkpoints in a folder. */
async function onTwo(
  outDir: string,
  work: (parts: { checkpoints: Checkpoints; ranks: RunRanks; save: (step: number) => Promise<void> }) => Promise<void>,
): Promise<void> {
  const config = parseConfig(tinyRun({ parallel: { shard: 'optimizer' } }));
  await onRanks(2, (place) =>
    RunRanks.meet(place, async (ranks) => {
      using device = openDevice('cpu', { threads: 1, memoryLimit: 2 ** 28 });
      using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
      using optimizer = new AdamW(model.trainableParameters(), { shards: ranks.shards(config) });
      const checkpoints = new Checkpoints(outDir, 2);
      const save = (step: number) =>
        ranks.isFirst
          ? checkpoints.save(model, optimizer, stateOf(step), { beside, ranks })
          : checkpoints.savePart(optimizer, step, ranks);
      await work({ checkpoints, ranks, save });
    }),
  );
}

describe('a checkpoint of ranks that share the optimizer', () => {
  itOnCpuRanks('is not there where a rank is lost while it is written; the one before is', async () => {
    for (const when of ['before its part', 'in place of its end']) {
      const outDir = newFolder();
      const lost = onTwo(outDir, async ({ ranks, save }) => {
        await save(2);
        if (ranks.isFirst) await save(4);
        else {
          if (when !== 'before its part') await ranks.gather(null); // rank 0 writes its part
          throw new Error('the disk is full');
        }
      });
      await assert.rejects(lost, /the disk is full/);
      assert.deepEqual(await readdir(join(outDir, 'checkpoints')), ['step-000002'], when);
      assert.equal((await new Checkpoints(outDir, 2).lastState())!.step, 2);
    }
  });

  itOnCpuRanks("is damaged where a rank's part is missing", async () => {
    const outDir = newFolder();
    await onTwo(outDir, async ({ save }) => {
      for (const step of [2, 4]) await save(step);
    });
    await rm(join(outDir, 'checkpoints', 'step-000004', 'optimizer-00002-of-00002.safetensors'));
    await assert.rejects(
      new Checkpoints(outDir, 2).lastState(),
      /optimizer-00002-of-00002\.safetensors: is damaged: .*step-000002 is whole/,
    );
  });
});
