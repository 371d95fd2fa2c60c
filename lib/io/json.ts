// Small files that appear whole or not at all.
import { writeWhole } from './whole_file.ts';

export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeWhole(path, (handle) => handle.writeFile(`${JSON.stringify(value, null, 2)}\n`));
}
