// Checkpoints of a run: folders that are written and removed atomically, from which it continues bit for bit.
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readAdapter, saveAdapter } from '../io/adapters.ts';
import { writeChatTemplate } from '../io/model_folder.ts';
import { saveModel } from '../io/save_model.ts';
import { readWeights } from '../io/weights.ts';
import { syncFolder } from '../io/whole_file.ts';
import type { Decoder } from '../models/decoder.ts';
import type { AdamW } from '../optim/adamw.ts';
import type { Evaluation } from './evaluate.ts';
import type { RunWarning } from './events.ts';
import { readOptimizer, writeOptimizer } from './optimizer_files.ts';
import type { RunRanks } from './run_ranks.ts';
import { CheckpointError, type RunState, readState, writeState } from './run_state.ts';

const FOLDER = 'checkpoints';
const NAME = /^step-(\d+)$/;
/** A checkpoint that is being written or removed. */
const LEFTOVER = /^\.step-\d+(\.[0-9a-f]{16}\.removed)?$/;

/** What is saved beside weights. */
export interface Beside {
  /** Folder of the tokenizer's files. */
  tokenizerFrom: string | null;
  /** The run's own template, in place of the tokenizer's. */
  chatTemplate: string | null;
}

export interface SavedWith {
  beside: Beside;
  ranks: RunRanks;
}

/** A run's checkpoints: those of the last steps, and of the best validation loss. */
export class Checkpoints {
  readonly #folder: string;
  readonly #keepLast: number;
  readonly #warn: (warning: RunWarning) => void;
  /** Names that could not be removed, and were warned of. */
  readonly #stuck = new Set<string>();

  constructor(outDir: string, keepLast: number, warn: (warning: RunWarning) => void = () => {}) {
    this.#folder = join(outDir, FOLDER);
    this.#keepLast = keepLast;
    this.#warn = warn;
  }

  /** Steps that there are checkpoints of, in order. */
  async steps(): Promise<number[]> {
    const steps = (await this.#names()).flatMap((name) => NAME.exec(name)?.[1] ?? []);
    return steps.map(Number).sort((a, b) => a - b);
  }

  /** Removes what a killed process has left half written or half removed. The caller must hold the lock of the run's folder. */
  async clean(): Promise<void> {
    for (const name of await this.#names()) if (LEFTOVER.test(name)) await this.#remove(name);
  }

  /**
   * Writes all files to a hidden folder, which then gets the checkpoint's name. Where ranks share the optimizer's states, every rank calls
   * it, writes its part, and `save` of rank 0 does the rest when all have.
   */
  async save(model: Decoder, optimizer: AdamW, state: RunState, { beside, ranks }: SavedWith): Promise<void> {
    const { tokenizerFrom, chatTemplate } = beside;
    const name = nameOf(state.step);
    const temporary = join(this.#folder, `.${name}`);
    if (await mkdir(this.#folder, { recursive: true })) await syncFolder(join(this.#folder, '..'));
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    try {
      if (model.lora) await saveAdapter(model, temporary, { dtype: model.dtype });
      else await saveModel(model, temporary, { dtype: model.dtype, tokenizerFrom });
      if (chatTemplate !== null) await writeChatTemplate(temporary, chatTemplate, null);
      await this.#writeOptimizer(temporary, optimizer, ranks);
      await writeState(temporary, state);
      await this.#hide(name); // of the same step, from before the run was continued
      await rename(temporary, join(this.#folder, name));
    } catch (error) {
      await rm(temporary, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
    await syncFolder(this.#folder);
    await this.removeOld(state.best?.step);
  }

  /** What another rank than 0 does while that saves the checkpoint of a step. */
  async savePart(optimizer: AdamW, step: number, ranks: RunRanks): Promise<void> {
    await this.#writeOptimizer(join(this.#folder, `.${nameOf(step)}`), optimizer, ranks);
  }

  /** Where ranks share the states: when rank 0 has made the folder, and until all have written. */
  async #writeOptimizer(folder: string, optimizer: AdamW, ranks: RunRanks): Promise<void> {
    if (optimizer.shards) await ranks.gather(null);
    await writeOptimizer(folder, optimizer);
    if (optimizer.shards) await ranks.gather(null);
  }

  /** Removes all but the last ones and the best. Warns if one cannot be removed. */
  async removeOld(best: number | undefined): Promise<void> {
    for (const step of (await this.steps()).slice(0, -this.#keepLast)) {
      if (step !== best) await this.#hide(nameOf(step)).catch((error: Error) => this.#report(nameOf(step), error));
    }
    await this.clean();
  }

  /**
   * The last checkpoint's state; null where there is none.
   * @throws CheckpointError where one of its files is damaged; the message says which earlier one is whole
   */
  async lastState(): Promise<RunState | null> {
    const steps = await this.steps();
    const last = steps.pop();
    if (last === undefined) return null;
    const read = (step: number) => readState(join(this.#folder, nameOf(step)), step);
    try {
      return await read(last);
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      for (const step of steps.reverse()) {
        if (!(await read(step).catch(() => null))) continue;
        const [bad, good] = [last, step].map((step) => join(this.#folder, nameOf(step)));
        throw new CheckpointError(
          `${error.message}; ${good} is whole, and the run goes on from it once ${bad} is removed`,
        );
      }
      throw new CheckpointError(`${error.message}; no earlier checkpoint is whole`);
    }
  }

  /** Overwrites parameters and optimizer state with those of a step. */
  async restore(model: Decoder, optimizer: AdamW, step: number): Promise<void> {
    const folder = join(this.#folder, nameOf(step));
    await (model.lora ? readAdapter : readWeights)(model, folder);
    await readOptimizer(folder, optimizer);
  }

  async #names(): Promise<string[]> {
    return await readdir(this.#folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
  }

  /** Renames a checkpoint, so that none has some of its files missing; `clean` removes it. */
  async #hide(name: string): Promise<void> {
    const hidden = join(this.#folder, `.${name}.${randomBytes(8).toString('hex')}.removed`);
    await rename(join(this.#folder, name), hidden).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }

  async #remove(name: string): Promise<void> {
    await rm(join(this.#folder, name), { recursive: true, force: true }).catch((error: Error) =>
      this.#report(name, error),
    );
  }

  #report(name: string, error: Error): void {
    if (!this.#stuck.has(name))
      this.#warn({ code: 'leftover', message: `${join(this.#folder, name)}: cannot be removed: ${error.message}` });
    this.#stuck.add(name);
  }
}

/** The better of two validations; a loss that is not finite never is. */
export function better(best: RunState['best'], step: number, { validationLoss }: Evaluation): RunState['best'] {
  if (!Number.isFinite(validationLoss)) return best;
  return best && best.validationLoss <= validationLoss ? best : { step, validationLoss };
}

const nameOf = (step: number) => `step-${String(step).padStart(6, '0')}`;
