// A file of one JSON object a line, each with the step that it belongs to.
import { type FileHandle, open, rename, writeFile } from 'node:fs/promises';
import { readIfThere } from '../io/read.ts';

export class StepFile<Line extends { step: number }> {
  readonly #handle: FileHandle;
  /** Lines that were in the file already. */
  readonly earlier: Line[];

  private constructor(handle: FileHandle, earlier: Line[]) {
    this.#handle = handle;
    this.earlier = earlier;
  }

  /** Begins a new file (step 0), or goes on after a step: later lines, and half of one, are taken away. */
  static async open<Line extends { step: number }>(path: string, step: number): Promise<StepFile<Line>> {
    const lines = step === 0 ? [] : ((await readIfThere(path)) ?? '').split('\n');
    const earlier = lines.flatMap((line) => {
      try {
        const parsed = JSON.parse(line) as Line;
        return parsed.step <= step ? [parsed] : [];
      } catch {
        return [];
      }
    });
    const temporary = `${path}.tmp`;
    await writeFile(temporary, earlier.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await rename(temporary, path);
    return new StepFile(await open(path, 'a'), earlier);
  }

  async append(line: Line): Promise<void> {
    await this.#handle.appendFile(`${JSON.stringify(line)}\n`);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
