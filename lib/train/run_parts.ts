// The parts of a run.
import type { Decoder } from '../models/decoder.ts';
import type { ProcessGroup } from '../ranks/process_group.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { Checkpoints } from './checkpoint.ts';
import type { RunEvents } from './event_stream.ts';
import type { RunPlan } from './policy.ts';
import type { RunData } from './run_data.ts';
import type { RunRanks } from './run_ranks.ts';
import type { Machine, RunSources, RunState } from './run_state.ts';

export interface RunParts {
  model: Decoder;
  tokenizer: Tokenizer;
  data: RunData;
  checkpoints: Checkpoints;
  events: RunEvents;
  /** Where it continues; null: it starts. */
  state: RunState | null;
  /** The same policy on all ranks. */
  plan: RunPlan;
  machine: Machine;
  sources: RunSources;
  ranks: RunRanks;
  /** Their devices; null: there is one rank. */
  group: ProcessGroup | null;
  /** Stops it. */
  signal?: AbortSignal;
}
