// The inverse frequencies of a model's rotary embedding, on its device.
import type { Device } from '../runtime/device.ts';
import { type Tensor, tensor } from '../runtime/tensor.ts';
import type { RopeConfig } from './rope_config.ts';
import { inverseFrequencies } from './rope_frequencies.ts';

/** Length up to which all sequences have the same frequencies, in tokens. */
export function longestShort(config: RopeConfig): number {
  if (config.type === 'dynamic') return config.maxPositions;
  return config.type === 'longrope' ? config.originalMaxPositions : Infinity;
}

export class RopeTables {
  readonly #config: RopeConfig;
  readonly #headSize: number;
  readonly #device: Device;
  /** Table for sequences up to maxPositions, or of any length where the frequencies do not depend on it. */
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
  of(tokens: number): Tensor {
    if (!this.dependsOn(tokens)) return this.#short;
    const length = this.#config.type === 'longrope' ? this.#config.originalMaxPositions + 1 : tokens;
    if (this.#long?.length !== length) {
      const frequencies = this.#make(length);
      this.#long?.frequencies.dispose();
      this.#long = { length, frequencies };
    }
    return this.#long.frequencies;
  }

  /** Whether a sequence of this many tokens has other frequencies than a short one. */
  dependsOn(length: number): boolean {
    return length > longestShort(this.#config);
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
