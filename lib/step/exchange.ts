// What ranks send each other in a step: sums of gradients before the update, and updated weights after it where each has updated a part.
import type { Parameter } from '../autograd/parameter.ts';
import type { SharedNorm } from '../optim/clip.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import type { ProcessGroup } from '../ranks/process_group.ts';
import type { Shards } from '../ranks/shards.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** The exchange of one rank; of one that is alone it does nothing, and on `meta` it stands for any rank's. */
export class Exchange implements SharedNorm {
  readonly #group: ProcessGroup | null;
  /** This rank's part of each parameter, where the optimizer has states of that alone; null: it has all. */
  readonly shards: Shards | null;

  constructor(group: ProcessGroup | null, { shards = null }: Pick<Optimizer, 'shards'>) {
    this.#group = group;
    this.shards = shards;
  }

  /** Overwrites a tensor with its sum over all ranks. */
  sum(tensor: Tensor): void {
    this.#group?.allReduce(tensor);
  }

  /** Overwrites a parameter's gradient with the sum over all ranks: whole, or in this rank's part alone. */
  sumGradient({ grad, name }: Parameter): void {
    if (!this.#group) return;
    if (!grad) throw new Error(`TrainStep: ${name ?? 'a parameter'} has no gradient on rank ${this.#group.rank}`);
    if (this.shards) this.#group.reduceScatter(grad);
    else this.#group.allReduce(grad);
  }

  /** Gives a parameter the parts of it that each rank has updated. */
  gather(parameter: Parameter): void {
    if (this.shards) this.#group?.allGather(parameter);
  }
}

/** Throws unless the optimizer's shards are those of the group. */
export function requireShards({ shards }: Pick<Optimizer, 'shards'>, group: ProcessGroup | null): void {
  if (!shards) return;
  if (!group) {
    throw new Error(
      `TrainStep: the optimizer has the states of rank ${shards.rank} of ${shards.size} alone, and group is null`,
    );
  }
  if (shards.rank === group.rank && shards.size === group.size) return;
  throw new Error(
    `TrainStep: the optimizer has the states of rank ${shards.rank} of ${shards.size}, and group is of rank ${group.rank} of ${group.size}`,
  );
}
