// The gated MLP over mini-sequences.
import { chunkedMlp } from '../../ops/chunked_mlp.ts';
import { geglu, swiglu } from '../../ops/glu.ts';
import { miniSequence } from '../../ops/mini_sequence.ts';
import type { Weight } from '../../ops/quantized_weight.ts';
import { tidy } from '../../runtime/scope.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { MlpSpec } from '../decoder_config.ts';
import type { Forward } from './forward.ts';
import { type Maker, parameter, projectionWeight } from './parameters.ts';
import { type Projection, project } from './projection.ts';

export class Mlp {
  readonly #spec: MlpSpec;
  /** Of gate and up where one weight holds both. */
  readonly #gate: Projection;
  readonly #up: Projection | null;
  readonly #down: Projection;

  constructor(spec: MlpSpec, layer: { path: string }, maker: Maker) {
    const C = maker.hiddenSize;
    const F = spec.intermediateSize;
    const path = (name: string) => `${layer.path}.mlp.${name}_proj`;
    const projection = (name: string, weight: Weight): Projection => ({
      path: path(name),
      weight,
      bias: spec.bias ? parameter(maker, `${path(name)}.bias`, weight.shape[0]!) : null,
    });
    this.#spec = spec;
    if (spec.isFused) {
      this.#gate = projection('gate_up', projectionWeight(maker, `${path('gate_up')}.weight`, 2 * F, C));
      this.#up = null;
      this.#down = projection('down', projectionWeight(maker, `${path('down')}.weight`, C, F));
      return;
    }
    // Side by side in memory, gate and up are computed by one product.
    const [gate, up] = maker.weights(
      ['gate', 'up'].map((name) => `${path(name)}.weight`),
      [
        [F, C],
        [F, C],
      ],
    ) as [Weight, Weight];
    this.#gate = projection('gate', gate);
    this.#up = projection('up', up);
    this.#down = projection('down', projectionWeight(maker, `${path('down')}.weight`, C, F));
  }

  get projections(): Projection[] {
    return this.#up ? [this.#gate, this.#up, this.#down] : [this.#gate, this.#down];
  }

  /** Name of the op that computes its output. */
  get op(): string {
    return this.#spec.bias ? 'miniSequence' : 'chunkedMlp';
  }

  /** @param x (N,C) */
  forward(x: Tensor, forward: Forward): Tensor {
    const { policy, adapters, dropout } = forward;
    if (this.#spec.bias) return this.#withBiases(x, forward);
    const adapterOf = ({ path }: Projection) => adapters.get(path) ?? null;
    const [gate, up, down] = [this.#gate, this.#up, this.#down];
    return chunkedMlp(x, gate.weight, up?.weight ?? null, down.weight, {
      activation: this.#spec.activation,
      chunkSize: policy.mlpChunkSize,
      save: policy.mlpSave,
      adapters: { gate: adapterOf(gate), up: up && adapterOf(up), down: adapterOf(down) },
      dropout,
    });
  }

  /** With biases. Its backward recomputes gate and up, whatever the policy says. */
  #withBiases(x: Tensor, { policy, adapters, dropout }: Forward): Tensor {
    const glu = this.#spec.activation === 'silu' ? swiglu : geglu;
    const chunk = (rows: Tensor, firstRow: number) =>
      tidy(() => {
        const ofChunk = { adapters, dropout: dropout && { ...dropout, firstRow } };
        const gate = project(rows, this.#gate, ofChunk);
        const between = glu(gate, project(rows, this.#up!, ofChunk));
        return project(between, this.#down, ofChunk);
      });
    return miniSequence(chunk, x, { chunkSize: policy.mlpChunkSize });
  }
}
