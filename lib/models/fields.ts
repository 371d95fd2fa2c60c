// Reads a config.json completely: every field is either read or known to change no number; any other is an error that names it.
import { brief, briefName } from '../brief.ts';
import { isEmpty, isInert, mayMatter } from './inert_fields.ts';

/** A parsed config.json. */
export type HuggingFaceConfig = Record<string, unknown>;

/** Fields whose presence means that the weights are quantised. */
export const QUANTISED = ['quantization_config', 'quantization', 'compression_config'];

/** Objects inside which ignoreFields applies too. */
const OF_ROPE = ['rope_scaling', 'rope_parameters'];

/** A copy of an object without some fields; the object itself if it has none of them. */
function without(object: HuggingFaceConfig, isLeftOut: (name: string, value: unknown) => boolean): HuggingFaceConfig {
  const entries = Object.entries(object);
  const left = entries.filter(([name, value]) => !isLeftOut(name, value));
  return left.length < entries.length ? Object.fromEntries(left) : object;
}

/** The fields of one object in config.json. Records which were read. */
export class Fields {
  /** Fields that the user ignores; they count as absent. */
  readonly ignored: ReadonlySet<string>;
  readonly #source: HuggingFaceConfig;
  readonly #path: string;
  readonly #read = new Set<string>();

  constructor(source: HuggingFaceConfig, path = 'config.json', ignored: Iterable<string> = []) {
    this.ignored = new Set(ignored);
    this.#source = Object.fromEntries(Object.entries(source).filter(([name]) => !this.ignored.has(name)));
    this.#path = path;
  }

  /** Value of a field; null counts as absent. */
  get(name: string): unknown {
    this.#read.add(name);
    return (Object.hasOwn(this.#source, name) ? this.#source[name] : undefined) ?? undefined;
  }

  /** A field that is an object; empty if absent. */
  object(name: string): HuggingFaceConfig {
    const value = this.get(name) ?? {};
    if (typeof value !== 'object' || Array.isArray(value)) this.fail(name, value, 'an object');
    return value as HuggingFaceConfig;
  }

  /** Whether the field is present with the value null, which for some fields differs from the default. */
  isNull(name: string): boolean {
    return Object.hasOwn(this.#source, name) && this.#source[name] === null;
  }

  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value)) this.fail(name, value, 'a number');
    return value as number;
  }

  positive(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (!(value > 0)) this.fail(name, value, 'a positive number');
    return value;
  }

  /** A positive integer. */
  count(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (!Number.isInteger(value) || value < 1) this.fail(name, value, 'a positive integer');
    return value;
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'boolean') this.fail(name, value, 'true or false');
    return value as boolean;
  }

  /** Requires that the field is absent or has one of these values. */
  only(name: string, ...supported: unknown[]): void {
    const value = this.get(name);
    if (value !== undefined && !supported.includes(value)) {
      this.fail(name, value, supported.map((one) => JSON.stringify(one)).join(' or ') || 'absent');
    }
  }

  fail(name: string, value: unknown, required: string): never {
    throw new RangeError(`${this.#path}: ${name} must be ${required}, got ${brief(value)}`);
  }

  /**
   * The config to write with saved weights; call it after all fields have been read. It leaves out ignored fields that are known to change
   * the numbers (all of rope's), since the model was computed without them, and fields about quantised weights, since saved weights are
   * never quantised. Returns the same object if it has none of these.
   */
  toWrite(source: HuggingFaceConfig): HuggingFaceConfig {
    const isFalse = (name: string) => this.ignored.has(name) && name !== 'model_type';
    let written = without(
      source,
      (name, value) =>
        (isFalse(name) && (this.#read.has(name) || mayMatter(name))) || (QUANTISED.includes(name) && !isEmpty(value)),
    );
    for (const name of OF_ROPE) {
      const rope = Object.hasOwn(written, name) ? written[name] : null;
      if (typeof rope !== 'object' || rope === null) continue;
      const left = without(rope as HuggingFaceConfig, isFalse);
      if (left !== rope) written = { ...written, [name]: left };
    }
    return written;
  }

  /** Throws if a field has not been read and may change the numbers. */
  finish(): void {
    for (const [name, value] of Object.entries(this.#source)) {
      if (isEmpty(value) || this.#read.has(name) || isInert(name, value)) continue;
      throw new RangeError(
        `${this.#path}: ${briefName(name)} (${brief(value)}) is not known to this model family; if you know that it changes no number, ` +
          `ignore it with ignoreFields: ['${briefName(name)}'] (--ignore-fields ${briefName(name)})`,
      );
    }
  }
}
