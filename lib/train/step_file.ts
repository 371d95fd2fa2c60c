// A file of one JSON object a line, each with the step that it belongs to.
import { type FileHandle, open } from 'node:fs/promises';
import { readIfThere } from '../io/read.ts';
import { writeFully, writeWhole } from '../io/whole_file.ts';

export class StepFile<Line extends { step: number }> {
  readonly #path: string;
  readonly #handle: FileHandle;
  /** Lines that were in the file already. */
  readonly earlier: Line[];
  #bytes: number;

  private constructor(path: string, handle: FileHandle, earlier: Line[], bytes: number) {
    this.#path = path;
    this.#handle = handle;
    this.earlier = earlier;
    this.#bytes = bytes;
  }

  /**
   * Begins a new file (step 0), or goes on after a step: later lines, and half of one, are taken away.
   * @param keyOf of lines with one key the first is kept. @default all are
   */
  static async open<Line extends { step: number }>(
    path: string,
    step: number,
    keyOf?: (line: Line) => string,
  ): Promise<StepFile<Line>> {
    const lines = step === 0 ? [] : ((await readIfThere(path)) ?? '').split('\n');
    const keys = new Set<string>();
    const earlier = lines.flatMap((line) => {
      const parsed = parse<Line>(line);
      if (!parsed || !(parsed.step <= step)) return [];
      const key = keyOf?.(parsed);
      if (key !== undefined && keys.has(key)) return [];
      if (key !== undefined) keys.add(key);
      return [parsed];
    });
    const text = new TextEncoder().encode(earlier.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await writeWhole(path, (handle) => writeFully(handle, text));
    return new StepFile(path, await open(path, 'a'), earlier, text.length);
  }

  /** A line that cannot be written whole is not written at all. */
  async append(line: Line): Promise<void> {
    const text = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
    try {
      await writeFully(this.#handle, text);
      this.#bytes += text.length;
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

/** null for half a line, or none. */
function parse<Line>(text: string): Line | null {
  try {
    return JSON.parse(text) as Line | null;
  } catch {
    return null;
  }
}
