// minisequence train
import { type RankPlace, rankPlace } from '../ranks/place.ts';
import { readRunConfig } from '../train/config_file.ts';
import { Progress } from '../train/metrics.ts';
import { train } from '../train/train.ts';
import { launchRanks, type NumRanks, numRanksOf } from './launch.ts';
import { outliveOutput } from './outlive_output.ts';
import { jsonOutput, terminalOutput } from './run_output.ts';
import { listenForStop } from './stop_signals.ts';

export interface TrainArguments {
  config: string;
  set?: string[];
  out?: string;
  resume: boolean;
  allowOtherMachine: boolean;
  gpus?: NumRanks;
  json: boolean;
}

/**
 * Trains: as one of several processes where environment variables say so, or starts them where --gpus asks for more than one. SIGINT,
 * SIGTERM and SIGHUP stop between two micro-batches and save, a second Ctrl-C ends at once. Output that cannot be written does not end a
 * run.
 */
export async function runTrain({ config: path, set = [], out, resume, json, ...rest }: TrainArguments): Promise<void> {
  const config = await readRunConfig(path, out === undefined ? set : [...set, `outDir=${out}`]);
  const ranks = rankPlace(process.env);
  const numRanks = ranks || rest.gpus === undefined ? 1 : numRanksOf(rest.gpus, config.device);
  if (numRanks > 1) {
    process.exitCode = await launchRanks(numRanks);
    return;
  }
  requireNumRanks(rest.gpus, ranks);
  const progress = new Progress(process.stdout);
  const warn = (text: string) => {
    progress.end();
    console.error(text);
  };
  outliveOutput((error) => warn(`Warning: standard output cannot be written, and the run goes on: ${error.message}`));
  using stop = listenForStop((name) => warn(`${name}: the run stops and saves; Ctrl-C once more ends it at once`));
  const onEvent = json ? jsonOutput(config) : terminalOutput(config, progress, warn);
  try {
    await train(config, { signal: stop.signal, resume, allowOtherMachine: rest.allowOtherMachine, ranks, onEvent });
  } finally {
    progress.end();
  }
}

function requireNumRanks(gpus: NumRanks | undefined, ranks: RankPlace | null): void {
  if (gpus === undefined || gpus === 'all' || !ranks || gpus === ranks.size) return;
  throw new RangeError(
    `--gpus ${gpus}: environment variables say that this is one of ${ranks.size} processes; leave one of the two out`,
  );
}
