// A file of one JSON object a line, each with the step that it belongs to.
import { type FileHandle, open } from 'node:fs/promises';
import { readIfThere } from '../io/read.ts';
import { writeFully, writeWhole } from '../io/whole_file.ts';

export class StepFile<Line extends { step: number }> {
  readonly #path: string;
  readonly #handle: FileHandle;
  /** Lines that were in the file already. */
  readonly earlier: Line[];
  readonly #keys: Keys<Line>;
  #bytes: number;

  private constructor(path: string, handle: FileHandle, earlier: Line[], { keys, bytes }: Written<Line>) {
    this.#path = path;
    this.#handle = handle;
    this.earlier = earlier;
    this.#keys = keys;
    this.#bytes = bytes;
  }

  /**
   * Begins a new file (step 0), or goes on after a step: later lines, and half of one, are taken away.
   * @param keyOf of lines with one key the first is kept. @default all are
   */
  static async open<Line extends { step: number }>(
    path: string,
    step: number,
    keyOf: (line: Line) => string | null = () => null,
  ): Promise<StepFile<Line>> {
    const lines = step === 0 ? [] : ((await readIfThere(path)) ?? '').split('\n');
    const keys = new Keys(keyOf);
    const earlier = lines.flatMap((line) => {
      const parsed = parse<Line>(line);
      if (!parsed || !(parsed.step <= step) || keys.has(parsed)) return [];
      keys.add(parsed);
      return [parsed];
    });
    const text = new TextEncoder().encode(earlier.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await writeWhole(path, (handle) => writeFully(handle, text));
    return new StepFile(path, await open(path, 'a'), earlier, { keys, bytes: text.length });
  }

  /** A line that cannot be written whole is not written at all. False: a line with its key is there already. */
  async append(line: Line): Promise<boolean> {
    if (this.#keys.has(line)) return false;
    const text = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
    try {
      await writeFully(this.#handle, text);
      this.#bytes += text.length;
      this.#keys.add(line);
      return true;
    } catch (error) {
      await this.#handle.truncate(this.#bytes).catch(() => {});
      const { code, message } = error as NodeJS.ErrnoException;
      throw Object.assign(new Error(`${this.#path}: cannot be written: ${message}`, { cause: error }), { code });
    }
  }

  /** From now on the lines so far survive a loss of power. */
  async sync(): Promise<void> {
    await this.#handle.sync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

interface Written<Line> {
  keys: Keys<Line>;
  bytes: number;
}

/** Keys of the lines of a file; null is no key. */
class Keys<Line> {
  readonly #keyOf: (line: Line) => string | null;
  readonly #keys = new Set<string>();

  constructor(keyOf: (line: Line) => string | null) {
    this.#keyOf = keyOf;
  }
  has(line: Line): boolean {
    const key = this.#keyOf(line);
    return key !== null && this.#keys.has(key);
  }
  add(line: Line): void {
    const key = this.#keyOf(line);
    if (key !== null) this.#keys.add(key);
  }
}

/** null for half a line, or none. */
function parse<Line>(text: string): Line | null {
  try {
    return JSON.parse(text) as Line | null;
  } catch {
    return null;
  }
}
