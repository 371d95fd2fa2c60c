// The gated MLP over mini-sequences.
import type { Parameter } from '../../autograd/parameter.ts';
import { chunkedMlp } from '../../ops/chunked_mlp.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { MlpSpec } from '../decoder_config.ts';
import type { Forward } from './forward.ts';
import { type Maker, parameter } from './parameters.ts';
import type { Projection } from './projection.ts';

export class Mlp {
  readonly #spec: MlpSpec;
  readonly #gate: Projection;
  readonly #up: Projection;
  readonly #down: Projection;

  constructor(spec: MlpSpec, layer: { path: string }, maker: Maker) {
    const C = maker.hiddenSize;
    const F = spec.intermediateSize;
    const path = (name: string) => `${layer.path}.mlp.${name}_proj`;
    const projection = (name: string, weight: Parameter): Projection => ({ path: path(name), weight, bias: null });
    this.#spec = spec;
    // Side by side in memory, gate and up are computed by one product.
    const [gate, up] = maker.group(
      ['gate', 'up'].map((name) => `${path(name)}.weight`),
      [
        [F, C],
        [F, C],
      ],
    ) as [Parameter, Parameter];
    this.#gate = projection('gate', gate);
    this.#up = projection('up', up);
    this.#down = projection('down', parameter(maker, `${path('down')}.weight`, C, F));
  }

  get projections(): Projection[] {
    return [this.#gate, this.#up, this.#down];
  }

  /** @param x (N,C) */
  forward(x: Tensor, { policy, adapters, dropout }: Forward): Tensor {
    const adapterOf = ({ path }: Projection) => adapters.get(path) ?? null;
    const [gate, up, down] = [this.#gate, this.#up, this.#down];
    return chunkedMlp(x, gate.weight, up.weight, down.weight, {
      activation: this.#spec.activation,
      chunkSize: policy.mlpChunkSize,
      save: policy.mlpSave,
      adapters: { gate: adapterOf(gate), up: adapterOf(up), down: adapterOf(down) },
      dropout,
    });
  }
}
