// A model's weights: parameters, and frozen projections in 4 bits.
import { Parameter } from '../autograd/parameter.ts';
import { QuantizedWeight, type Weight } from '../ops/quantized_weight.ts';
import type { Device } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import { emptyGroup } from '../runtime/tensor.ts';

export class Weights {
  /** The parameters, in order. */
  readonly named = new Map<string, Parameter>();
  readonly #quantized = new Map<string, QuantizedWeight>();
  /** Names of all weights in order, in the groups that lie side by side. */
  readonly #groups: string[][] = [];
  readonly #options: { dtype: Dtype; device: Device; gradientDtype: GradientDtype };

  constructor(options: { dtype: Dtype; device: Device; gradientDtype: GradientDtype }) {
    this.#options = options;
  }

  /** All weights, in order. */
  *all(): Generator<[name: string, weight: Weight]> {
    for (const name of this.#groups.flat()) yield [name, this.named.get(name) ?? this.#quantized.get(name)!];
  }

  /** Elements of the weights in 4 bits. */
  get numQuantized(): number {
    return [...this.#quantized.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** Makes parameters that lie side by side in memory. */
  group(names: string[], shapes: readonly (readonly number[])[]): Parameter[] {
    const group = this.#parameters(names, shapes);
    for (const parameter of group) this.named.set(parameter.name!, parameter);
    this.#groups.push(names);
    return group;
  }

  /** Makes weights in 4 bits. */
  quantizedGroup(names: string[], shapes: readonly (readonly number[])[]): QuantizedWeight[] {
    const { dtype, device } = this.#options;
    const group = names.map((name, i) => {
      const weight = new QuantizedWeight(shapes[i]!, { dtype, device, name });
      this.#quantized.set(name, weight);
      return weight;
    });
    this.#groups.push(names);
    return group;
  }

  /** Makes weights in 4 bits parameters, of the values that they stand for. If memory runs out, nothing changes. */
  dequantize(): void {
    const made: Parameter[] = [];
    try {
      for (const names of this.#groups) {
        const weights = names.flatMap((name) => this.#quantized.get(name) ?? []);
        const shapes = weights.map(({ shape }) => shape);
        const group = weights.length > 0 ? this.#parameters(names, shapes) : [];
        made.push(...group);
        for (const [i, parameter] of group.entries()) weights[i]!.dequantizeInto(parameter);
      }
    } catch (error) {
      for (const parameter of made) parameter.dispose();
      throw error;
    }
    const byName = new Map([...this.named.values(), ...made].map((parameter) => [parameter.name!, parameter]));
    this.named.clear();
    for (const name of this.#groups.flat()) this.named.set(name, byName.get(name)!);
    this.disposeQuantized();
  }

  disposeQuantized(): void {
    for (const weight of this.#quantized.values()) weight.dispose();
    this.#quantized.clear();
  }

  #parameters(names: string[], shapes: readonly (readonly number[])[]): Parameter[] {
    const { dtype, device, gradientDtype } = this.#options;
    const memory = emptyGroup(shapes, { dtype, device, category: 'parameter' });
    const group = memory.map((each, i) => new Parameter(each, { name: names[i], gradientDtype }));
    if (group.length > 1) for (const parameter of group) parameter.group = group;
    return group;
  }
}
