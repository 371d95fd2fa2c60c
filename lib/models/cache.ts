// The keys and values of the tokens that a model has read, for generation.
import type { Device } from '../runtime/device.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import type { DecoderConfig } from './decoder_config.ts';

export class KeyValueCache {
  readonly capacity: number;
  /** Number of tokens that the cache holds. To empty it, set 0. */
  length = 0;
  /** Length of the text that the keys have the rotary frequencies of; only longrope depends on it. */
  ropeLength = 0;
  readonly #layers: { k: Tensor; v: Tensor }[];

  /** Allocates room for `capacity` tokens, each with 2·G·D elements per layer. */
  constructor(model: { config: DecoderConfig; dtype: Dtype; device: Device }, capacity: number) {
    this.capacity = capacity;
    const { dtype, device } = model;
    const make = (width: number) => empty([capacity, width], { dtype, device, category: 'activation' });
    this.#layers = tidy(() => {
      const layers = model.config.layers.map(({ attention: { numKeyValueHeads, headSize } }) => {
        const width = numKeyValueHeads * headSize;
        return { k: make(width), v: make(width) };
      });
      for (const { k, v } of layers) for (const tensor of [k, v]) tensor.keep();
      return layers;
    });
  }

  /** Writes a layer's rows after the first `length` tokens. The model adds to `length` after its last layer. */
  append(layer: number, k: Tensor, v: Tensor): { k: Tensor; v: Tensor } {
    const kept = this.#layers[layer]!;
    const [N] = k.shape as [number, number];
    tidy(() => {
      kernels.cast(k, kept.k.rows(this.length, this.length + N));
      kernels.cast(v, kept.v.rows(this.length, this.length + N));
    });
    return kept;
  }

  dispose(): void {
    for (const { k, v } of this.#layers) {
      k.dispose();
      v.dispose();
    }
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}
