// Whether a run may continue from a checkpoint: the same computation, on the same machine, from the same files.
import { createHash, webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename } from 'node:path';
import { bytesOf } from '../io/elements.ts';
import { PIECE_BYTES, slice } from '../io/pieces.ts';
import type { Decoder } from '../models/decoder.ts';
import { QuantizedWeight } from '../ops/quantized_weight.ts';
import type { Device } from '../runtime/device.ts';
import { addon } from '../runtime/native.ts';
import type { Tensor } from '../runtime/tensor.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type RunConfig, storedConfig } from './config.ts';
import type { RunWarning } from './events.ts';
import { withNewNames } from './renamed_options.ts';
import type { Machine, RunSources, RunState } from './run_state.ts';

/** Options that may change on resume: they affect duration and reporting, not results, or are paths of what is compared by content. */
const CHANGEABLE_OPTIONS = [
  'maxSteps',
  'epochs',
  'outDir',
  'checkpoint',
  'evaluation',
  'samples',
  'tensorboard',
  'memoryLimit',
  'hostMemoryLimit',
  'model.path',
  'tokenizer',
  'data.files',
  'data.validation.files',
  'data.chatTemplate',
  'device',
  'threads',
  'accumulationSteps',
];
/** How matrix products, attention and ranks compute: may change with the machine. */
const MACHINE_OPTIONS = ['parallel', 'attention', 'matmul', 'tuneMatmul', 'deterministic'];

export interface ContinuationOptions {
  outDir: string;
  /** Continue although results will differ in their last bits. */
  allowOtherMachine: boolean;
  /** Number of ranks now. */
  numRanks: number;
}

export function requireSameConfig(state: RunState, config: RunConfig, options: ContinuationOptions): void {
  const changeable = options.allowOtherMachine ? [...CHANGEABLE_OPTIONS, ...MACHINE_OPTIONS] : CHANGEABLE_OPTIONS;
  const mayChange = (key: string) => changeable.some((option) => key === option || key.startsWith(`${option}.`));
  const different = differences(storedConfig(state.config), config).filter((key) => !mayChange(key));
  if (different.length > 0) {
    const names = different.join(', ');
    throw new Error(`${options.outDir}: belongs to a run with another ${names}; give the same, or another outDir`);
  }
  requireSameStep(state, config, options);
}

/** A step must have as many micro-batches as before, over all ranks: its number says which sequences are next. */
function requireSameStep(state: RunState, config: RunConfig, { outDir, numRanks }: ContinuationOptions): void {
  const before = storedConfig(state.config);
  const [then, now] = [
    { steps: before.accumulationSteps, ranks: (state.machine.ranks ?? 1) / before.parallel.sequence },
    { steps: config.accumulationSteps, ranks: numRanks / config.parallel.sequence },
  ];
  if (then.steps * then.ranks === now.steps * now.ranks) return;
  throw new Error(
    `${outDir}: belongs to a run with ${then.steps * then.ranks} micro-batches a step (accumulationSteps ${then.steps}, ranks ${then.ranks}), ` +
      `and accumulationSteps ${now.steps} on ${now.ranks} ranks are ${now.steps * now.ranks}: give as many, or another outDir`,
  );
}

/** What a device's results depend on, to the bit. */
export function machineOf({ target, name }: Device, numRanks: number): Machine {
  const ranks = numRanks > 1 ? { ranks: numRanks } : {};
  if (target.kind === 'cpu') return { target, name: cpus()[0]?.model ?? 'unknown', ...ranks };
  const index = Number(name.split(':')[1] ?? 0);
  const gpu = addon()
    .describe_cuda()
    .devices.find((device) => device.index === index);
  return { target, name: gpu?.name ?? 'unknown', ...ranks };
}

/** The warning of a run that continues on another machine; null: it is the same. */
export function requireSameMachine(state: RunState, machine: Machine, options: ContinuationOptions): RunWarning | null {
  const [then, now] = [state.machine, machine].map(
    ({ target, name, ranks }) =>
      `${JSON.stringify(withNewNames(target))} (${name})${ranks ? ` on ${ranks} ranks` : ''}`,
  );
  if (then === now) return null;
  if (options.allowOtherMachine) {
    const message = `the run was computed on ${then} and goes on on ${now}: its losses are not those of an uninterrupted run to the last bit`;
    return { code: 'inexact', message };
  }
  throw new Error(
    `${options.outDir}: the run was computed on ${then} and cannot be continued exactly on ${now}; ` +
      '--allow-other-machine (allowOtherMachine) goes on all the same',
  );
}

/** Compares what is known so far; `files` names, for each part, where it comes from. */
export function requireSameSources(
  then: RunSources,
  now: Partial<RunSources>,
  outDir: string,
  files: Record<keyof RunSources, string>,
): void {
  for (const part of Object.keys(now) as (keyof RunSources)[]) {
    const different = differences(then[part], now[part]);
    if (different.length === 0) continue;
    const names = different.filter((name) => name !== '');
    const which = names.length > 0 ? ` (${names.join(', ')})` : '';
    throw new Error(
      `${outDir}: the run cannot go on: ${files[part]}${which} is not what it began with; give the same, or another outDir`,
    );
  }
}

export function hashOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}

export async function tokenizerHashes({ files }: Tokenizer): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const path of files)
    hashes[basename(path)] = createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  return hashes;
}

/**
 * Hash of a model's weights as they are on its device, whatever file they came from. Hashing runs on other threads; the copy to the host
 * takes a second for some GB.
 */
export async function weightsHash(model: Decoder): Promise<string> {
  const whole = createHash('sha256');
  for (const [name, parameter] of tensorsOf(model)) {
    whole.update(`${name} ${parameter.dtype} ${parameter.shape}\n`);
    const count = Math.ceil(PIECE_BYTES / 2);
    for (let begin = 0; begin < parameter.size; begin += count) {
      const end = Math.min(begin + count, parameter.size);
      const data = await slice(parameter, begin, end, (piece) => piece.data());
      whole.update(new Uint8Array(await webcrypto.subtle.digest('SHA-256', bytesOf(data))));
    }
  }
  return whole.digest('hex');
}

function* tensorsOf(model: Decoder): Generator<[name: string, tensor: Tensor]> {
  for (const [name, weight] of model.weights()) {
    if (!(weight instanceof QuantizedWeight)) yield [name, weight];
    else for (const [part, tensor] of Object.entries(weight.tensors)) yield [`${name}.${part}`, tensor];
  }
}

/** Options in which two values differ, with dots between levels. */
function differences(a: unknown, b: unknown, path = ''): string[] {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) {
    return JSON.stringify(a) === JSON.stringify(b) ? [] : [path];
  }
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].flatMap((key) =>
    differences(
      (a as Record<string, unknown>)[key],
      (b as Record<string, unknown>)[key],
      path ? `${path}.${key}` : key,
    ),
  );
}
