// What a run writes to its folder beside its line files: its configuration, checkpoints and the model.
import { dirname, join } from 'node:path';
import { stringify as toYaml } from 'yaml';
import { saveAdapter } from '../io/adapters.ts';
import { CHAT_TEMPLATE_FILE, removeUncarried, writeChatTemplate } from '../io/model_folder.ts';
import { saveModel } from '../io/save_model.ts';
import { writeWhole } from '../io/whole_file.ts';
import type { AdamW } from '../optim/adamw.ts';
import type { Beside } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import type { RunParts } from './run_parts.ts';
import type { RunState } from './run_state.ts';
import { withWholeMasters } from './shared_masters.ts';
import { modelIn, requireSpace } from './start_checks.ts';

export class RunFiles {
  readonly #config: RunConfig;
  readonly #parts: RunParts;
  readonly #optimizer: AdamW;
  readonly #beside: Beside;
  /** The step that the last checkpoint has. */
  #saved: number;

  constructor(config: RunConfig, parts: RunParts, optimizer: AdamW) {
    const { tokenizer, state } = parts;
    this.#config = config;
    this.#parts = parts;
    this.#optimizer = optimizer;
    this.#beside = {
      tokenizerFrom: tokenizer.path ? dirname(tokenizer.path) : null,
      chatTemplate: hasOwnTemplate(config) ? (tokenizer.chatTemplate?.saved() ?? null) : null,
    };
    this.#saved = state?.step ?? 0;
  }

  get saved(): number {
    return this.#saved;
  }

  /** Sets the values that the model and the optimizer start or continue with. */
  async restore(): Promise<void> {
    const { model, checkpoints, state, ranks } = this.#parts;
    if (state) {
      await checkpoints.restore(model, this.#optimizer, state.step);
      if (ranks.isFirst) await checkpoints.removeOld(state.best?.step); // a kill may have come before
    } else await this.#optimizer.readStored();
  }

  /** Throws if the disk has no room for the model and the checkpoints of the remaining steps. */
  async requireSpace(stepsLeft: number): Promise<void> {
    const { model, checkpoints } = this.#parts;
    const { everySteps } = this.#config.checkpoint;
    const present = (await checkpoints.steps()).length;
    const more = everySteps === undefined ? 0 : Math.ceil(stepsLeft / everySteps);
    await requireSpace(this.#config, model, this.#optimizer, { present, more });
  }

  async writeConfig(): Promise<void> {
    const path = join(this.#config.outDir, 'config.yaml');
    await writeWhole(path, (handle) => handle.writeFile(toYaml(this.#config)));
  }

  async saveCheckpoint(state: Omit<RunState, 'machine' | 'sources' | 'config'>): Promise<void> {
    const { model, checkpoints, machine, sources, events, ranks } = this.#parts;
    const { step, isTold, seconds, policy, best, previousNorm, unwritten } = state;
    const progress = { step, isTold, seconds, policy, best, previousNorm, unwritten };
    const whole = { ...progress, machine, sources, config: this.#config };
    await checkpoints.save(model, this.#optimizer, whole, { beside: this.#beside, ranks });
    this.#saved = step;
    await events.emit({ type: 'checkpoint', step });
  }

  /** This rank's part of a checkpoint that rank 0 saves. */
  async saveCheckpointPart(step: number): Promise<void> {
    const { checkpoints, ranks } = this.#parts;
    await checkpoints.savePart(this.#optimizer, step, ranks);
    this.#saved = step;
  }

  /** The model, or its adapters, in HuggingFace's layout. Where ranks share the optimizer, every rank calls it. */
  async saveModel(): Promise<void> {
    await withWholeMasters(this.#optimizer, this.#parts, () => this.#saveModel());
  }

  async #saveModel(): Promise<void> {
    const { outDir } = this.#config;
    const { model } = this.#parts;
    const { tokenizerFrom, chatTemplate } = this.#beside;
    const isUsedAgain = (await modelIn(outDir)) !== null;
    if (model.lora) await saveAdapter(model, outDir);
    else await saveModel(model, outDir, { tokenizerFrom });
    if (chatTemplate !== null) await writeChatTemplate(outDir, chatTemplate, null);
    const written = chatTemplate === null ? [] : [CHAT_TEMPLATE_FILE];
    if (isUsedAgain) await removeUncarried(model.lora ? null : tokenizerFrom, outDir, written);
  }
}

/** Whether conversations are rendered with a template or variables other than the model's files give. */
function hasOwnTemplate({ data: { chatTemplate, templateVariables = {} } }: RunConfig): boolean {
  return chatTemplate !== undefined || Object.keys(templateVariables).length > 0;
}
