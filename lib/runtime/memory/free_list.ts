// The free parts of [0, end), allocated by best fit; free neighbours are merged. Pure bookkeeping, the same on every device.

interface Hole {
  offset: number;
  size: number;
}

/** Offsets and sizes in bytes, multiples of the caller's alignment. */
export class FreeList {
  /** Sorted by offset; no two touch. */
  readonly #holes: Hole[] = [];
  /** Everything from here on is free. No hole touches it. */
  end = 0;

  /** Offset of the smallest hole of at least `size` (the lowest of equals), or `end` if there is none. */
  find(size: number): number {
    let best: Hole | null = null;
    for (const hole of this.#holes) {
      if (hole.size >= size && (best === null || hole.size < best.size)) best = hole;
    }
    return best ? best.offset : this.end;
  }

  take(offset: number, size: number): void {
    if (offset === this.end) {
      this.end += size;
      return;
    }
    const index = this.#indexFrom(offset);
    const hole = this.#holes[index]!;
    if (hole.size === size) this.#holes.splice(index, 1);
    else {
      hole.offset += size;
      hole.size -= size;
    }
  }

  give(offset: number, size: number): void {
    let index = this.#indexFrom(offset);
    const before = this.#holes[index - 1];
    let hole: Hole;
    if (before && before.offset + before.size === offset) {
      before.size += size;
      hole = before;
      index -= 1;
    } else {
      hole = { offset, size };
      this.#holes.splice(index, 0, hole);
    }
    const after = this.#holes[index + 1];
    if (after && hole.offset + hole.size === after.offset) {
      hole.size += after.size;
      this.#holes.splice(index + 1, 1);
    }
    if (hole.offset + hole.size === this.end) {
      this.end = hole.offset; // a hole at the end moves `end` back instead: the next allocation that fits in no hole starts there
      this.#holes.splice(index, 1);
    }
  }

  /** Index of the first hole at or after `offset`. */
  #indexFrom(offset: number): number {
    let low = 0;
    let high = this.#holes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#holes[middle]!.offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
