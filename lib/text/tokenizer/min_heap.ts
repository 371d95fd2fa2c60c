// A heap of doubles, smallest first.

export class MinHeap {
  #values: Float64Array;
  size = 0;

  /** @param expected number of values to reserve memory for */
  constructor(expected = 16) {
    this.#values = new Float64Array(Math.max(16, expected));
  }

  push(value: number): void {
    if (this.size === this.#values.length) {
      const larger = new Float64Array(2 * this.size);
      larger.set(this.#values);
      this.#values = larger;
    }
    const values = this.#values;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (values[parent]! <= value) break;
      values[at] = values[parent]!;
      at = parent;
    }
    values[at] = value;
  }

  /** Removes and returns the smallest value. The heap must not be empty. */
  pop(): number {
    const values = this.#values;
    const smallest = values[0]!;
    const last = values[--this.size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && values[child + 1]! < values[child]!) child += 1;
      if (values[child]! >= last) break;
      values[at] = values[child]!;
      at = child;
    }
    values[at] = last;
    return smallest;
  }
}
