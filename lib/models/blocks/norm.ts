// RMSNorm.
import type { Parameter } from '../../autograd/parameter.ts';
import { rmsNorm } from '../../ops/rms_norm.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { NormSpec } from '../decoder_config.ts';
import { type Maker, parameter } from './parameters.ts';

export class Norm {
  readonly #weight: Parameter;
  readonly #spec: NormSpec;

  /** @param size number of weights; an input with a multiple of `size` columns is normalised in parts of that size */
  constructor(path: string, size: number, maker: Maker) {
    this.#weight = parameter(maker, `${path}.weight`, size);
    this.#spec = maker.norm;
  }

  forward(x: Tensor): Tensor {
    const { eps, offset } = this.#spec;
    return rmsNorm(x, this.#weight, { eps, weightOffset: offset });
  }
}
