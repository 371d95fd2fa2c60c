// A table from pairs of integers to integers. A Map would have to combine each pair into one number.

export class PairTable {
  #first: Int32Array;
  #second: Int32Array;
  #values: Int32Array;
  #mask: number;
  #size = 0;

  /** @param expected number of pairs to reserve memory for */
  constructor(expected = 16) {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(16, 2 * expected)));
    this.#mask = capacity - 1;
    this.#first = new Int32Array(capacity).fill(-1);
    this.#second = new Int32Array(capacity);
    this.#values = new Int32Array(capacity);
  }

  /** The value of a pair; -1 if it has none. */
  get(first: number, second: number): number {
    const at = this.#find(first, second);
    return this.#first[at] === -1 ? -1 : this.#values[at]!;
  }

  /** @param first, second, value at least 0 */
  set(first: number, second: number, value: number): void {
    let at = this.#find(first, second);
    if (this.#first[at] === -1) {
      if (2 * (this.#size + 1) > this.#mask) {
        this.#grow();
        at = this.#find(first, second);
      }
      this.#size += 1;
      this.#first[at] = first;
      this.#second[at] = second;
    }
    this.#values[at] = value;
  }

  #find(first: number, second: number): number {
    let hash = Math.imul(first, 0x9e3779b1) ^ Math.imul(second, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    let at = (hash ^ (hash >>> 13)) & this.#mask;
    while (this.#first[at] !== -1 && (this.#first[at] !== first || this.#second[at] !== second)) {
      at = (at + 1) & this.#mask;
    }
    return at;
  }

  #grow(): void {
    const [first, second, values] = [this.#first, this.#second, this.#values];
    const capacity = 2 * (this.#mask + 1);
    this.#mask = capacity - 1;
    this.#first = new Int32Array(capacity).fill(-1);
    this.#second = new Int32Array(capacity);
    this.#values = new Int32Array(capacity);
    first.forEach((key, i) => {
      if (key === -1) return;
      const at = this.#find(key, second[i]!);
      this.#first[at] = key;
      this.#second[at] = second[i]!;
      this.#values[at] = values[i]!;
    });
  }
}
