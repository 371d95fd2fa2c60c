// A mixture of experts over mini-sequences: a router, and gated MLPs that each take some of the tokens.
import { chunkedExperts, type Experts as Weights } from '../../ops/chunked_experts.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { ExpertsSpec, MlpSpec } from '../decoder_config.ts';
import type { Forward } from './forward.ts';
import { type Maker, parameter } from './parameters.ts';
import type { Projection } from './projection.ts';

export class Experts {
  readonly #spec: MlpSpec;
  readonly #experts: ExpertsSpec;
  readonly #weights: Weights;
  /** None of its weights can have an adapter. */
  readonly projections: Projection[] = [];
  /** Name of the op that computes its output. */
  readonly op = 'chunkedExperts';

  constructor(spec: MlpSpec, experts: ExpertsSpec, layer: { path: string }, maker: Maker) {
    const C = maker.hiddenSize;
    const F = spec.intermediateSize;
    const { count, names } = experts;
    const path = `${layer.path}.${names.block}`;
    const all = Array.from({ length: count }, (_, expert) => expert);
    const named = (expert: number, name: string) => `${path}.experts.${expert}.${name}.weight`;
    this.#spec = spec;
    this.#experts = experts;
    // The op takes the weights of all experts side by side.
    const gateUp = maker.group(
      all.flatMap((expert) => [named(expert, names.gate), named(expert, names.up)]),
      all.flatMap(() => [
        [F, C],
        [F, C],
      ]),
    );
    const down = maker.group(
      all.map((expert) => named(expert, names.down)),
      all.map(() => [C, F]),
    );
    this.#weights = { router: parameter(maker, `${path}.gate.weight`, count, C), gateUp, down };
  }

  /** @param x (N,C) */
  forward(x: Tensor, { policy }: Forward): Tensor {
    const { perToken, isNormalized } = this.#experts;
    const { activation } = this.#spec;
    return chunkedExperts(x, this.#weights, { perToken, isNormalized, activation, chunkSize: policy.mlpChunkSize });
  }
}
