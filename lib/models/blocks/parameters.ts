// What the constructors of blocks get: a maker of parameters, and tables of rotary frequencies.
import type { Parameter } from '../../autograd/parameter.ts';
import type { Weight } from '../../ops/quantized_weight.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { NormSpec } from '../decoder_config.ts';
import type { RopeConfig } from '../rope_config.ts';
import type { RopeTables } from '../rope_tables.ts';

/** Makes parameters of these names and shapes, side by side in memory. */
export type MakeGroup = (names: string[], shapes: number[][]) => Parameter[];

/** A number that files store beside the weights, as a tensor of shape (1). */
export interface Constant {
  value: number;
}

/** The model that blocks belong to, as their constructors see it. */
export interface Maker {
  hiddenSize: number;
  norm: NormSpec;
  group: MakeGroup;
  /** The same for weights of projections, which are in 4 bits if the model's config says so. */
  weights(names: string[], shapes: number[][]): Weight[];
  /** Values that files store and no step changes, by their name: 1 each until they are loaded. */
  constant(name: string): Constant;
  /** (size,) of ones in the model's dtype; the model disposes it. */
  ones(size: number): Tensor;
  /** The model's tables; it disposes them. */
  ropeTables(rope: RopeConfig, headSize: number): RopeTables;
}

/** Makes one parameter. */
export function parameter({ group }: Maker, name: string, ...shape: number[]): Parameter {
  return group([name], [shape])[0]!;
}

/** Makes the weight of one projection. */
export function projectionWeight({ weights }: Maker, name: string, ...shape: number[]): Weight {
  return weights([name], [shape])[0]!;
}
