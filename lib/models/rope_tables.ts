// The inverse frequencies of a model's rotary embedding, on its device.
import type { Device } from '../runtime/device.ts';
import { type Tensor, tensor } from '../runtime/tensor.ts';
import type { RopeConfig } from './rope_config.ts';
import { inverseFrequencies } from './rope_frequencies.ts';

export class RopeTables {
  readonly #config: RopeConfig;
  readonly #headSize: number;
  readonly #device: Device;
  /** Table for sequences up to maxPositions, or of any length without dynamic rope. */
  readonly #short: Tensor;
  /** Table of the most recent longer sequence. */
  #long: { length: number; frequencies: Tensor } | null = null;

  constructor(config: RopeConfig, headSize: number, device: Device) {
    this.#config = config;
    this.#headSize = headSize;
    this.#device = device;
    this.#short = this.#make(1);
  }

  /** (D/2,) float64, for a sequence of this many tokens; valid until the next call with another length. */
  of(length: number): Tensor {
    if (!this.dependsOn(length)) return this.#short;
    if (this.#long?.length !== length) {
      const frequencies = this.#make(length);
      this.#long?.frequencies.dispose();
      this.#long = { length, frequencies };
    }
    return this.#long.frequencies;
  }

  /** Whether the frequencies depend on the length, for a sequence of this many tokens. */
  dependsOn(length: number): boolean {
    return this.#config.type === 'dynamic' && length > this.#config.maxPositions;
  }

  dispose(): void {
    this.#short.dispose();
    this.#long?.frequencies.dispose();
    this.#long = null;
  }

  #make(length: number): Tensor {
    const values = inverseFrequencies(this.#config, this.#headSize, length);
    return tensor(values, { device: this.#device, category: 'parameter' }).keep();
  }
}
