// Memory of this process as Linux counts it.
import { readFileSync, writeFileSync } from 'node:fs';

/** Resident bytes of the mappings from `base` on that the arena has made accessible. */
export function touchedBytes(base: number): number {
  let end = base;
  let resident = 0;
  for (const mapping of readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, from, to, permissions] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(mapping)!;
    if (Number.parseInt(from!, 16) !== end || permissions === '---p') continue; // the rest of the reserved range
    end = Number.parseInt(to!, 16);
    resident += 1024 * Number(/^Rss: +(\d+) kB/m.exec(mapping)![1]);
  }
  return resident;
}

/** Bytes that this process has resident more than now, at most, while `fn` runs. */
export async function mostMoreResident(fn: () => Promise<void>): Promise<number> {
  const bytes = (field: string) =>
    1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))![1]);
  writeFileSync('/proc/self/clear_refs', '5'); // VmHWM begins again
  const before = bytes('VmRSS');
  await fn();
  return bytes('VmHWM') - before;
}
