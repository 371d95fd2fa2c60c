// Ranks in one process, each with a device of its own.
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import type { RankPlace } from '../../lib/index.ts';
import { addonPaths } from '../../lib/runtime/native.ts';
import { hasFloat64 } from './devices.ts';

const addonPath = addonPaths().find((path) => existsSync(path));
const hasGloo = addonPath !== undefined && existsSync(join(dirname(addonPath), 'libminisequence_gloo.so'));

/** A test of CPU ranks. Packages come without the library that connects them. */
export const itOnCpuRanks =
  hasFloat64 && hasGloo
    ? it
    : (title: string, _test: Mocha.AsyncFunc | Mocha.Func): Mocha.Test =>
        it.skip(`${title} (on the CPU with Gloo alone)`);

/** A port of this machine that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Places of `size` ranks on this machine. */
export async function places(size: number): Promise<RankPlace[]> {
  const port = await freePort();
  return Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    localRank: rank,
    localSize: size,
    address: '127.0.0.1',
    port,
  }));
}

/** What each rank makes of its place, by rank. Rejects with the first error when all have ended. */
export async function onRanks<Result>(size: number, work: (place: RankPlace) => Promise<Result>): Promise<Result[]> {
  const results = await Promise.allSettled((await places(size)).map(work));
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
