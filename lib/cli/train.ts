// minisequence train
import { readRunConfig } from '../train/config.ts';
import { Progress } from '../train/metrics.ts';
import { train } from '../train/train.ts';
import { outliveOutput } from './outlive_output.ts';
import { jsonOutput, terminalOutput } from './run_output.ts';
import { listenForStop } from './stop_signals.ts';

export interface TrainArguments {
  config: string;
  set?: string[];
  out?: string;
  resume: boolean;
  allowOtherMachine: boolean;
  json: boolean;
}

/**
 * Trains. SIGINT, SIGTERM and SIGHUP stop between two micro-batches and save, a second Ctrl-C ends at once. Output that cannot be written
 * does not end a run.
 */
export async function runTrain({ config: path, set = [], out, resume, json, ...rest }: TrainArguments): Promise<void> {
  const config = await readRunConfig(path, out === undefined ? set : [...set, `outDir=${out}`]);
  const progress = new Progress(process.stdout);
  const warn = (text: string) => {
    progress.end();
    console.error(text);
  };
  outliveOutput((error) => warn(`Warning: standard output cannot be written, and the run goes on: ${error.message}`));
  using stop = listenForStop((name) => warn(`${name}: the run stops and saves; Ctrl-C once more ends it at once`));
  const onEvent = json ? jsonOutput(config) : terminalOutput(config, progress, warn);
  try {
    await train(config, { signal: stop.signal, resume, allowOtherMachine: rest.allowOtherMachine, onEvent });
  } finally {
    progress.end();
  }
}
