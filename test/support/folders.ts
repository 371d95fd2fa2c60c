// Folders of models for tests: what their files hold, and copies that are stored in other dtypes.
import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fromFile, toFile } from '../../lib/io/elements.ts';
import { openModelFolder } from '../../lib/io/model_folder.ts';
import { SafetensorsFile, type TensorToWrite, writeSafetensors } from '../../lib/io/safetensors.ts';
import type { SafetensorsDtype } from '../../lib/runtime/safetensors_dtype.ts';
import { newFolder } from './runs.ts';

export const parity = (name: string): string => `test/fixtures/parity/${name}`;

/** Names, dtypes, shapes and bytes of everything that a folder's files hold. */
export async function contents(folder: string): Promise<Map<string, string>> {
  const files = await openModelFolder(folder);
  const found = new Map<string, string>();
  for (const [name, file] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { dtype, shape } = file.entries.get(name)!;
    found.set(name, `${dtype} (${shape}) ${Buffer.from(await file.read(name)).toString('base64')}`);
  }
  for (const file of new Set(files.values())) await file.close();
  return found;
}

/** What a copy of a fixture stores under which name: null leaves it out. */
export type Stored = { name: string; dtype: SafetensorsDtype };

/** A copy of an F32 fixture; `change` says in what dtype and under which name each tensor is stored. */
export async function copyOf(
  fixture: string,
  change: (name: string) => Partial<Stored> | null = () => ({}),
  more: TensorToWrite[] = [],
): Promise<string> {
  const folder = newFolder();
  await cp(parity(fixture), folder, { recursive: true });
  const path = join(folder, 'model.safetensors');
  const file = await SafetensorsFile.open(path);
  const tensors: TensorToWrite[] = [];
  for (const [stored, { shape }] of file.entries) {
    const changed = change(stored);
    if (!changed) continue;
    const { name = stored, dtype = 'F32' } = changed;
    const floats = fromFile(stored, await file.read(stored), 'F32', 'float32');
    const data = new Float32Array(floats.buffer as ArrayBuffer, floats.byteOffset, floats.byteLength / 4);
    tensors.push({ name, dtype, shape, data: () => toFile(data, 'float32', dtype) });
  }
  await file.close();
  await writeSafetensors(path, [...tensors, ...more]);
  return folder;
}

/** The f32 values of one tensor of model.safetensors. */
export async function floatsOf(folder: string, name: string): Promise<Float32Array> {
  const file = await SafetensorsFile.open(join(folder, 'model.safetensors'));
  const { dtype } = file.entries.get(name)!;
  const bytes = Uint8Array.from(await file.read(name));
  await file.close();
  const floats = fromFile(name, bytes, dtype, 'float32');
  return new Float32Array(floats.buffer as ArrayBuffer, floats.byteOffset, floats.byteLength / 4);
}

export const configOf = async (folder: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
