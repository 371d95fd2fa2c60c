// The optimizer's states in a checkpoint: one file, or one for each rank that has a part of them.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileDtypes, toFile } from '../io/elements.ts';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.ts';
import type { AdamW } from '../optim/adamw.ts';
import type { StatePart } from '../optim/adamw_state.ts';
import { Shards } from '../ranks/shards.ts';
import { tidy } from '../runtime/scope.ts';

/** optimizer.safetensors, or optimizer-00001-of-00002.safetensors of rank 0 of 2. */
const NAME = /^optimizer(?:-(\d{5})-of-(\d{5}))?\.safetensors$/;
const WHOLE = new Shards(0, 1);

const numbered = (i: number) => String(i).padStart(5, '0');
const nameOf = ({ rank, size }: Shards) =>
  size === 1 ? 'optimizer.safetensors' : `optimizer-${numbered(rank + 1)}-of-${numbered(size)}.safetensors`;

/** Writes what this optimizer has. */
export async function writeOptimizer(folder: string, optimizer: AdamW): Promise<void> {
  const tensors = [...optimizer.state()].map(([name, tensor]) => ({
    name,
    dtype: fileDtypes[tensor.dtype]!,
    shape: tensor.shape,
    data: async () => toFile(await tensor.data(), tensor.dtype, fileDtypes[tensor.dtype]!),
  }));
  await writeSafetensors(join(folder, nameOf(optimizer.shards ?? WHOLE)), tensors);
}

/** Overwrites what this optimizer has, from the files of any number of ranks. */
export async function readOptimizer(folder: string, optimizer: AdamW): Promise<void> {
  const found = (await readdir(folder)).flatMap((name) => NAME.exec(name)?.[2] ?? (NAME.test(name) ? '1' : []));
  const size = Number(found[0] ?? 1);
  const files: { shards: Shards; file: SafetensorsFile }[] = [];
  try {
    for (let rank = 0; rank < size; rank++) {
      const shards = new Shards(rank, size);
      files.push({ shards, file: await SafetensorsFile.open(join(folder, nameOf(shards))) });
    }
    for (const part of optimizer.stateParts()) await readPart(part, optimizer.shards ?? WHOLE, files);
  } finally {
    for (const { file } of files) await file.close();
  }
}

async function readPart(
  { name, tensor, of, unit }: StatePart,
  own: Shards,
  files: readonly { shards: Shards; file: SafetensorsFile }[],
): Promise<void> {
  if (of === null) tensor.write(await files[0]!.file.read(name));
  else {
    const to = own.range(of, unit);
    const bytesEach = tensor.sizeBytes / tensor.size;
    for (const { shards, file } of files) {
      const from = shards.range(of, unit);
      const [begin, end] = [Math.max(from.begin, to.begin), Math.min(from.end, to.end)];
      if (begin >= end) continue;
      const [bytes, expected] = [file.entries.get(name)?.bytes, (from.end - from.begin) * bytesEach];
      if (bytes !== undefined && bytes !== expected) {
        throw new Error(
          `${file.path}: ${name} has ${bytes} bytes, and rank ${shards.rank} of ${shards.size} has ${expected}`,
        );
      }
      const data = await file.readRange(name, (begin - from.begin) * bytesEach, (end - from.begin) * bytesEach);
      tidy(() => {
        const flat = tensor.alias().reshape([tensor.size]);
        flat.rows(begin - to.begin, end - to.begin).write(data);
      });
      await tensor.device.synchronize();
    }
  }
}
