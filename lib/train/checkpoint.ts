// Checkpoints of a run: folders that appear whole or not at all, from which it goes on bit for bit.
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readAdapter, saveAdapter } from '../io/adapters.ts';
import { fileDtypes, toFile } from '../io/elements.ts';
import { writeChatTemplate } from '../io/model_folder.ts';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.ts';
import { saveModel } from '../io/save_model.ts';
import { readWeights } from '../io/weights.ts';
import type { Decoder, StepPolicy } from '../models/decoder.ts';
import type { AdamW } from '../optim/adamw.ts';
import type { RunConfig } from './config.ts';
import type { Evaluation } from './evaluate.ts';

const FOLDER = 'checkpoints';
const STATE = 'state.json';
const OPTIMIZER = 'optimizer.safetensors';
const NAME = /^step-(\d+)$/;
/** May differ between a run and its continuation: they say how long it runs and what it tells, not what it computes. */
const FREE_OPTIONS = new Set(['maxSteps', 'epochs', 'outDir', 'checkpoint', 'evaluation', 'samples', 'memoryLimit']);

/** Everything beside tensors that a run needs to go on. Random state and data position follow from seed and step. */
export interface RunState {
  /** Steps done. */
  step: number;
  /** Whether the validation and samples of that step are done too. */
  isTold: boolean;
  /** Chosen at the run's start; sums are in another order under another one. */
  policy: StepPolicy;
  /** What sums depend on. */
  target: unknown;
  best: { step: number; validationLoss: number } | null;
  config: RunConfig;
}

/** What is saved beside weights. */
export interface Beside {
  /** Folder of the tokenizer's files. */
  tokenizerFrom: string | null;
  /** The run's own template, in place of the tokenizer's. */
  chatTemplate: string | null;
}

/** A run's checkpoints: those of the last steps, and of the best validation loss. */
export class Checkpoints {
  readonly #folder: string;
  readonly #keepLast: number;

  constructor(outDir: string, keepLast: number) {
    this.#folder = join(outDir, FOLDER);
    this.#keepLast = keepLast;
  }

  /** Steps that there are checkpoints of, in order; what a kill has left half done is removed. */
  async steps(): Promise<number[]> {
    const names = await readdir(this.#folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    const found: number[] = [];
    for (const name of names) {
      const step = NAME.exec(name)?.[1];
      if (step) found.push(Number(step));
      else if (name.startsWith('.')) await rm(join(this.#folder, name), { recursive: true, force: true });
    }
    return found.sort((a, b) => a - b);
  }

  async save(
    model: Decoder,
    optimizer: AdamW,
    state: RunState,
    { tokenizerFrom, chatTemplate }: Beside,
  ): Promise<void> {
    const temporary = join(this.#folder, `.${nameOf(state.step)}`);
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    if (model.lora) await saveAdapter(model, temporary);
    else await saveModel(model, temporary, { dtype: model.dtype, tokenizerFrom });
    if (chatTemplate !== null) await writeChatTemplate(temporary, chatTemplate);
    await writeSafetensors(
      join(temporary, OPTIMIZER),
      [...optimizer.state()].map(([name, tensor]) => ({
        name,
        dtype: fileDtypes[tensor.dtype]!,
        shape: tensor.shape,
        data: async () => toFile(await tensor.data(), tensor.dtype, fileDtypes[tensor.dtype]!),
      })),
    );
    await writeSynced(join(temporary, STATE), JSON.stringify(state, null, 2));
    await syncFolder(temporary);
    const final = join(this.#folder, nameOf(state.step));
    await rm(final, { recursive: true, force: true }); // of the same step, from before the run was continued
    await rename(temporary, final);
    await syncFolder(this.#folder);
    await this.#removeOld(state.best?.step);
  }

  /** The last checkpoint's state; null where there is none. Throws where it belongs to another configuration. */
  async readState(config: RunConfig): Promise<RunState | null> {
    const step = (await this.steps()).at(-1);
    if (step === undefined) return null;
    const path = join(this.#folder, nameOf(step), STATE);
    const state = JSON.parse(await readFile(path, 'utf8')) as RunState;
    const different = differences(state.config, config).filter((key) => !FREE_OPTIONS.has(key.split('.')[0]!));
    if (different.length > 0) {
      throw new Error(
        `${path}: belongs to a run with another ${different.join(', ')}; give the same, or another outDir`,
      );
    }
    return state;
  }

  /** Overwrites parameters and optimizer state with those of a step. */
  async restore(model: Decoder, optimizer: AdamW, step: number): Promise<void> {
    const folder = join(this.#folder, nameOf(step));
    await (model.lora ? readAdapter : readWeights)(model, folder);
    const file = await SafetensorsFile.open(join(folder, OPTIMIZER));
    try {
      for (const [name, tensor] of optimizer.state()) {
        tensor.write(await file.read(name));
        await tensor.device.synchronize();
      }
    } finally {
      await file.close();
    }
  }

  async #removeOld(best: number | undefined): Promise<void> {
    const steps = await this.steps();
    for (const step of steps.slice(0, -this.#keepLast)) {
      if (step !== best) await rm(join(this.#folder, nameOf(step)), { recursive: true, force: true });
    }
  }
}

/** The better of two validations. */
export function better(best: RunState['best'], step: number, { validationLoss }: Evaluation): RunState['best'] {
  return best && best.validationLoss <= validationLoss ? best : { step, validationLoss };
}

const nameOf = (step: number) => `step-${String(step).padStart(6, '0')}`;

/** Options in which two configurations differ, with dots between levels. */
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

async function writeSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, 'w');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** So that names survive a loss of power, as the files behind them do. */
async function syncFolder(path: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    await handle.sync();
  } finally {
    await handle?.close();
  }
}
