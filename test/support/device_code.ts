// What device code a binary holds. In place of `cuobjdump --list-elf --list-ptx`, which comes with the whole toolkit alone.
import { readFileSync } from 'node:fs';

const MAGIC = 0xba55ed50;
const PTX = 1;
/** Flag of code that uses what one architecture alone has: sm_90a. */
const ARCHITECTURE_SPECIFIC = 1 << 20;

/** For each compiled source its architectures: 'sm_80', 'sm_90a', …, 'compute_80' for PTX. */
export function deviceCode(path: string): string[][] {
  const file = readFileSync(path);
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(MAGIC);
  const sources: string[][] = [];
  for (let at = file.indexOf(magic); at !== -1; at = file.indexOf(magic, at + 4)) {
    const headerBytes = file.readUInt16LE(at + 6);
    if (file.readUInt16LE(at + 4) !== 1 || headerBytes !== 16) continue; // a number that looks like it
    const found: string[] = [];
    const end = at + headerBytes + Number(file.readBigUInt64LE(at + 8));
    for (let entry = at + headerBytes; entry < end; ) {
      const isSpecific = (file.readUInt32LE(entry + 40) & ARCHITECTURE_SPECIFIC) !== 0;
      const architecture = `${file.readUInt32LE(entry + 28)}${isSpecific ? 'a' : ''}`;
      found.push(`${file.readUInt16LE(entry) === PTX ? 'compute' : 'sm'}_${architecture}`);
      entry += file.readUInt32LE(entry + 4) + Number(file.readBigUInt64LE(entry + 8));
    }
    sources.push(found);
  }
  return sources;
}
