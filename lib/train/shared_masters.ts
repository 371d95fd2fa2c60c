// Saving a model whose master copies are shared between ranks.
import type { AdamW } from '../optim/adamw.ts';
import type { ProcessGroup } from '../ranks/process_group.ts';
import type { RunRanks } from './run_ranks.ts';

/**
 * Runs `save` on rank 0, with master copies that are put together, one at a time, when `save` reads them. Every rank calls it; the others
 * give their parts. Needs memory for one whole f32 copy.
 * @param group null: there is one rank
 */
export async function withWholeMasters(
  optimizer: AdamW,
  { ranks, group }: { ranks: RunRanks; group: ProcessGroup | null },
  save: () => Promise<void>,
): Promise<void> {
  if (!optimizer.shards || !group) {
    if (ranks.isFirst) await save();
    return;
  }
  const assemble = (i: number) => optimizer.wholeMaster(optimizer.parameters[i]!, (whole) => group.allGather(whole));
  if (!ranks.isFirst) {
    for (;;) {
      const [next] = await ranks.gather<number | null>(null);
      if (next == null) return;
      assemble(next).dispose();
    }
  }
  const shared = [...optimizer.parameters.entries()].filter(([, parameter]) => optimizer.hasMaster(parameter));
  for (const [i, parameter] of shared) {
    parameter.readMaster = async () => {
      await ranks.gather(i);
      return assemble(i);
    };
  }
  try {
    await save();
  } finally {
    for (const [, parameter] of shared) parameter.readMaster = null;
  }
  await ranks.gather(null);
}
