// minisequence train
import { formatBytes } from '../runtime/memory/statistics.ts';
import { readRunConfig } from '../train/config.ts';
import { compareLlama3, compareMemory, formatComparison, type MemoryComparison } from '../train/memory_report.ts';
import { formatMetrics, Progress } from '../train/metrics.ts';
import { train } from '../train/train.ts';
import { outliveOutput } from './outlive_output.ts';
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
  const say = (text: string) => {
    if (!json) console.log(text);
  };
  const emit = (type: string, value: object) => {
    if (json) console.log(JSON.stringify({ type, ...value }));
  };
  let comparison: MemoryComparison | null = null;
  try {
    const result = await train(config, {
      signal: stop.signal,
      resume,
      allowOtherMachine: rest.allowOtherMachine,
      onStart({ model, policy, numSteps, stepsDone, numTokens, numSequences, longestSequence, isPacked }) {
        const { batchSize: B, accumulationSteps } = config;
        comparison = compareMemory({
          config: model.config,
          B,
          T: longestSequence,
          dtype: config.dtype,
          gradientDtype: config.gradientDtype,
          accumulationSteps,
          isPacked,
          lora: model.lora?.layout,
          masterWeights: config.masterWeights,
          stateBits: config.optimizer.stateBits,
          policy,
          like: model.device.target,
        });
        say(
          `${model.numParameters().toLocaleString('en')} parameters in ${config.dtype} on ${model.device}; ` +
            `${numTokens.toLocaleString('en')} tokens in ${numSequences} sequences of ${longestSequence}; ${numSteps} steps`,
        );
        const { mlpChunkSize, lossChunkSize, mlpSave, recompute } = policy;
        say(
          `MLP in chunks of ${mlpChunkSize} tokens (keeps ${mlpSave}), head and loss of ${lossChunkSize}; recompute: ${recompute}`,
        );
        if (stepsDone > 0) say(`continued after step ${stepsDone}`);
        emit('start', {
          parameters: model.numParameters(),
          numTokens,
          numSequences,
          stepsDone,
          numSteps,
          policy,
          device: String(model.device),
        });
      },
      onStep(metrics, numSteps) {
        if (json) emit('step', metrics);
        else progress.show(formatMetrics(metrics, numSteps));
      },
      onEvaluation(metrics) {
        const { step, validationLoss, perplexity } = metrics;
        if (json) emit('evaluation', metrics);
        else
          progress.note(
            `step ${step}  validation loss ${validationLoss.toFixed(4)}  perplexity ${perplexity.toFixed(2)}`,
          );
      },
      onSample(sample) {
        if (json) emit('sample', sample);
        else progress.note(`step ${sample.step}  ${sample.prompt}${sample.text}`);
      },
      onSkip: (message) => (json ? emit('skip', { message }) : progress.note(`skipped ${message}`)),
      onWarning: (warning) => (json ? emit('warning', warning) : warn(`Warning: ${warning.message}`)),
    });
    progress.end();
    const llama3 = compareLlama3();
    let end = 'stopped before the first step of';
    if (result.finished) end = 'saved';
    else if (result.metrics.length > 0) end = 'stopped; saved';
    say(`${end} ${result.outDir}`);
    say(
      formatComparison(
        `\nMemory of a step of this run, predicted, and measured (${formatBytes(result.peakBytes)}):`,
        comparison!,
        result.peakBytes || undefined, // no step was left to do
      ),
    );
    say(formatComparison('\nLlama-3-8B at T = 65536, bf16, on one GPU, predicted:', llama3));
    emit('end', {
      finished: result.finished,
      outDir: result.outDir,
      peakBytes: result.peakBytes,
      memory: comparison,
      llama3,
    });
  } finally {
    progress.end();
  }
}
