// Limits of one rendering. Templates come with downloaded models, so they are untrusted programs.
import { TemplateBudgetError } from './errors.ts';

/** Number of steps: nodes of the template that are evaluated, items that are visited, and the like. The values of the input add to it. */
const STEPS = 10_000_000;
const STEPS_PER_VALUE = 1000;
/** Total UTF-16 units of all texts that are made; those of the input add to it. */
const UNITS = 2 ** 27;
const UNITS_PER_UNIT = 16;
/** Depth of nested calls of macros and loops. Python's recursion limit stops jinja2 earlier. */
const DEPTH = 200;
const TIME_MS = 5000;
/** Number of steps between two checks of the time. */
const STRIDE = 1 << 14;

export class Budget {
  #steps = STEPS;
  #units = UNITS;
  #depth = 0;
  #lookAt = STEPS - STRIDE;
  readonly #deadline = performance.now() + TIME_MS;

  /** Raises the limits for more input. */
  extend(values: number, units: number): void {
    this.#steps += values * STEPS_PER_VALUE;
    this.#units += units * UNITS_PER_UNIT;
    this.#lookAt = this.#steps - STRIDE;
  }

  spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps >= this.#lookAt) return;
    if (this.#steps < 0) throw new TemplateBudgetError('takes too many steps');
    if (performance.now() > this.#deadline) throw new TemplateBudgetError(`takes longer than ${TIME_MS / 1000} s`);
    this.#lookAt = this.#steps - STRIDE;
  }

  /** Call before a text of this many UTF-16 units is made or scanned. */
  text(units: number): void {
    this.#units -= units;
    if (!(this.#units >= 0)) throw new TemplateBudgetError('makes too much text');
    this.spend(1 + (units >>> 5));
  }

  /** Call before a list or object of this many entries is made. */
  container(entries: number): void {
    this.spend(32 + 4 * entries);
  }

  enter(): void {
    this.#depth += 1;
    if (this.#depth > DEPTH) throw new TemplateBudgetError(`calls itself more than ${DEPTH} levels deep`);
  }

  leave(): void {
    this.#depth -= 1;
  }
}
