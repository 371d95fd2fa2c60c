// What blocks are made with: their parameters and tables of positions.
import type { Parameter } from '../../autograd/parameter.ts';
import type { NormSpec } from '../decoder_config.ts';
import type { RopeConfig } from '../rope_config.ts';
import type { RopeTables } from '../rope_tables.ts';

/** Makes parameters of these names and shapes, one after another in memory. */
export type MakeGroup = (names: string[], shapes: number[][]) => Parameter[];

/** The model that blocks are made for. */
export interface Maker {
  hiddenSize: number;
  norm: NormSpec;
  group: MakeGroup;
  /** The model's own, which it disposes of. */
  ropeTables(rope: RopeConfig, headSize: number): RopeTables;
}

/** Makes one parameter. */
export function parameter({ group }: Maker, name: string, ...shape: number[]): Parameter {
  return group([name], [shape])[0]!;
}
