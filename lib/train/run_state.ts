// What a checkpoint holds beside its tensors, in state.json: the run's progress, its machine, and its files.
import { open, readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { crc32 } from 'node:zlib';
import { writeWhole } from '../io/whole_file.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { DeviceTarget } from '../runtime/device.ts';
import type { RunConfig } from './config.ts';
import type { EvaluationMetrics, StepMetrics } from './metrics.ts';

export const STATE = 'state.json';
const PIECE_BYTES = 2 ** 20;

/** Everything beside tensors that a run needs to continue. Random state and data position follow from seed and step. */
export interface RunState {
  /** Steps done. */
  step: number;
  /** Whether the validation and samples of that step are done too. */
  isTold: boolean;
  /** Seconds that the run had taken. */
  seconds: number;
  /** Chosen at the run's start; another policy would sum in another order. */
  policy: StepPolicy;
  best: { step: number; validationLoss: number } | null;
  /** For clipping 'previous': the norm that the next step is clipped by; null: none. */
  previousNorm: number | null;
  /** Lines that metrics.jsonl could not take when the run ended with an error. */
  unwritten: readonly (StepMetrics | EvaluationMetrics)[];
  /** What the run is computed on. */
  machine: Machine;
  /** What it is computed from. */
  sources: RunSources;
  config: RunConfig;
}

/** What the last bits of sums depend on. */
export interface Machine {
  target: DeviceTarget;
  /** Name of the processor or the GPU. */
  name: string;
  /** Number of ranks; absent: one. */
  ranks?: number;
}

/** Hashes of what a run reads, whatever its path. */
export interface RunSources {
  /** Fields of config.json. */
  modelConfig: string;
  /** The initial weights, as they are computed with; null: random ones, which follow from the seed. */
  weights: string | null;
  /** By name of the tokenizer's files. */
  tokenizer: Record<string, string>;
  /** Ids and marks of the training data. */
  data: string;
  validation: string | null;
}

/** A file of a checkpoint as it was written. */
interface FileFacts {
  bytes: number;
  crc32: number;
}

type Stored = RunState & { files: Record<string, FileFacts> };

/** Thrown for a checkpoint whose files are not those that were written; the message names the file. */
export class CheckpointError extends Error {
  override readonly name = 'CheckpointError';
}

/** Writes state.json beside the files of a checkpoint, with their checksums and its own. */
export async function writeState(folder: string, state: RunState): Promise<void> {
  const files: Record<string, FileFacts> = {};
  const found = (await readdir(folder, { recursive: true, withFileTypes: true })).filter(
    (entry) => !entry.isDirectory(),
  );
  const names = found.map(({ parentPath, name }) => relative(folder, join(parentPath, name)));
  for (const name of names.sort()) files[name] = await factsOf(join(folder, name));
  const stored: Stored = { ...state, files };
  const text = JSON.stringify({ ...stored, crc32: crc32(JSON.stringify(stored)) }, null, 2);
  await writeWhole(join(folder, STATE), (handle) => handle.writeFile(text));
}

/** The state of a checkpoint of this step, whose files are as they were written. */
export async function readState(folder: string, step: number): Promise<RunState> {
  const path = join(folder, STATE);
  const { files, ...state } = parse(
    path,
    await readFile(path, 'utf8').catch((error: Error) => damaged(path, error.message)),
  );
  if (state.step !== step) damaged(path, `is of step ${state.step}`);
  for (const [name, { bytes, crc32 }] of Object.entries(files)) {
    const found = await factsOf(join(folder, name)).catch((error: Error) => damaged(join(folder, name), error.message));
    if (found.bytes !== bytes) damaged(join(folder, name), `has ${found.bytes} bytes, ${bytes} were written`);
    if (found.crc32 !== crc32) damaged(join(folder, name), `has the checksum ${found.crc32}, ${crc32} was written`);
  }
  return state;
}

function parse(path: string, text: string): Stored {
  let parsed: { crc32?: unknown };
  try {
    parsed = JSON.parse(text) as typeof parsed;
  } catch (error) {
    damaged(path, (error as Error).message);
  }
  const { crc32: written, ...stored } = parsed ?? {};
  if (written === undefined) damaged(path, 'has no checksum');
  if (crc32(JSON.stringify(stored)) !== written) damaged(path, 'is not what was written');
  return stored as Stored;
}

function damaged(path: string, problem: string): never {
  throw new CheckpointError(`${path}: is damaged: ${problem}`);
}

async function factsOf(path: string): Promise<FileFacts> {
  const handle = await open(path, 'r');
  try {
    const piece = new Uint8Array(PIECE_BYTES);
    const facts = { bytes: 0, crc32: 0 };
    for (;;) {
      const { bytesRead } = await handle.read(piece, 0, piece.length, facts.bytes);
      if (bytesRead === 0) return facts;
      facts.bytes += bytesRead;
      facts.crc32 = crc32(piece.subarray(0, bytesRead), facts.crc32);
    }
  } finally {
    await handle.close();
  }
}
