// Starts the ranks of a run on this machine, and ends with them.
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { InvalidArgumentError } from 'commander';
import { addon } from '../runtime/native.ts';

export type NumRanks = number | 'all';

/** How long ranks may take to end when one has failed; one that has not met the others yet does not learn of it. */
const END_SECONDS = 10;

export function ranksFrom(text: string): NumRanks {
  if (text === 'all') return text;
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError("must be a positive integer or 'all'.");
  return Number(text);
}

/**
 * Runs this command once more for each rank. Rank 0 has this process's output; what others write to standard error gets their number.
 * Signals are passed on, and where this process is killed the ranks stop as at SIGTERM.
 * @param size number of ranks, at least 2: one alone is not told that it is a rank, and would start another
 * @returns the exit code: 0 where every rank ended well
 */
export async function launchRanks(size: number): Promise<number> {
  const port = await freePort();
  const children = Array.from({ length: size }, (_, rank) => start(rank, size, port));
  const pass = (signal: NodeJS.Signals) => {
    for (const child of children) child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, pass);
  try {
    const codes = await Promise.all(children.map((child) => endOf(child, children)));
    return codes.find((code) => code !== 0) ?? 0;
  } finally {
    for (const signal of signals) process.off(signal, pass);
  }
}

/**
 * How many ranks --gpus asks for.
 * @param device of the configuration
 * @throws RangeError for 'all' where there is no GPU
 */
export function numRanksOf(gpus: NumRanks, device: string): number {
  if (gpus !== 'all') return gpus;
  const { devices, problem } = addon().describe_cuda();
  if (device === 'cpu') throw new RangeError("--gpus all: device is 'cpu'; say how many processes");
  if (devices.length === 0) throw new RangeError(`--gpus all: there is none: ${problem}`);
  return devices.length;
}

function start(rank: number, size: number, port: number): ChildProcess {
  const place = {
    RANK: String(rank),
    WORLD_SIZE: String(size),
    LOCAL_RANK: String(rank),
    LOCAL_WORLD_SIZE: String(size),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(port),
  };
  const [script, ...args] = process.argv.slice(1);
  const child = spawn(process.execPath, [...process.execArgv, script!, ...args], {
    env: { ...process.env, ...place },
    stdio: rank === 0 ? ['inherit', 'inherit', 'inherit', 'ipc'] : ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  if (child.stderr) createInterface(child.stderr).on('line', (line) => console.error(`[rank ${rank}] ${line}`));
  return child;
}

/** Waits for a rank's end. Where it fails, the others get some time to notice. */
async function endOf(child: ChildProcess, all: readonly ChildProcess[]): Promise<number> {
  const code = await new Promise<number>((resolve) => {
    child.once('error', () => resolve(1));
    child.once('close', (code) => resolve(code ?? 1));
  });
  if (code !== 0) {
    const timer = setTimeout(() => {
      for (const other of all) other.kill('SIGKILL');
    }, END_SECONDS * 1000);
    timer.unref();
  }
  return code;
}

/** A port of this machine that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
