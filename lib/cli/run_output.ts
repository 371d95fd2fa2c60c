// What `minisequence train` prints of a run: for people, or one JSON object a line.
import { clippingOf } from '../optim/clip.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import type { RunConfig } from '../train/config.ts';
import type { RunEvent, RunStart } from '../train/events.ts';
import {
  comparedStep,
  compareLlama3,
  compareMemory,
  formatComparison,
  type MemoryComparison,
} from '../train/memory_report.ts';
import { formatMetrics, type Progress } from '../train/metrics.ts';
import { policyText, whyText } from './policy_text.ts';

/** Prints events as lines for people. */
export function terminalOutput(
  config: RunConfig,
  progress: Progress,
  warn: (text: string) => void,
): (event: RunEvent) => void {
  let comparison: MemoryComparison | null = null;
  return (event) => {
    if (event.type === 'start') {
      const { model, plan, numSteps, stepsDone, numTokens, numSequences, longestSequence } = event.start;
      comparison = compareRun(config, event.start);
      console.log(
        `${model.numParameters().toLocaleString('en')} parameters in ${config.dtype} on ${model.device}; ` +
          `${numTokens.toLocaleString('en')} tokens in ${numSequences} sequences of ${longestSequence}; ${numSteps} steps`,
      );
      const { policy, reservedBytes, before, memoryLimit, isContinued } = plan;
      const { hostBytes } = model.device.memory();
      const onHost = hostBytes > 0 ? `, and ${formatBytes(hostBytes)} of the host` : '';
      console.log(
        `${policyText(policy)}; a step takes ${formatBytes(reservedBytes)} of ${formatBytes(memoryLimit)}${onHost}`,
      );
      console.log(isContinued ? 'that of the run that goes on' : whyText(before, memoryLimit));
      if (config.optimizer.inBackward)
        console.log(`optimizer step in the backward; clipping: ${clippingOf({ ...config, inBackward: true })}`);
      if (stepsDone > 0) console.log(`continued after step ${stepsDone}`);
    } else if (event.type === 'step') progress.show(formatMetrics(event.metrics, event.numSteps));
    else if (event.type === 'evaluation') {
      const { step, validationLoss, perplexity } = event.metrics;
      progress.note(`step ${step}  validation loss ${validationLoss.toFixed(4)}  perplexity ${perplexity.toFixed(2)}`);
    } else if (event.type === 'sample') {
      const { step, prompt, text } = event.sample;
      progress.note(`step ${step}  ${prompt}${text}`);
    } else if (event.type === 'skip') progress.note(`skipped ${event.message}`);
    else if (event.type === 'warning') warn(`Warning: ${event.warning.message}`);
    else if (event.type === 'end') {
      const { finished, metrics, outDir, peakBytes } = event.result;
      progress.end();
      let end = 'stopped before the first step of';
      if (finished) end = 'saved';
      else if (metrics.length > 0) end = 'stopped; saved';
      console.log(`${end} ${outDir}`);
      const title = `\nMemory of a step of this run, predicted, and measured (${formatBytes(peakBytes)}):`;
      const measured = peakBytes || undefined; // no step was left to do
      console.log(formatComparison(title, comparison!, measured));
      console.log(formatComparison('\nLlama-3-8B at T = 65536, bf16, on one GPU, predicted:', compareLlama3()));
    }
  };
}

/** Prints events as JSON, for programs. */
export function jsonOutput(config: RunConfig): (event: RunEvent) => void {
  const print = (type: string, value: object) => console.log(JSON.stringify({ type, ...value }));
  let memory: MemoryComparison | null = null;
  return (event) => {
    if (event.type === 'start') {
      const { model, plan, policy, numSteps, stepsDone, numTokens, numSequences } = event.start;
      memory = compareRun(config, event.start);
      const counts = { parameters: model.numParameters(), numTokens, numSequences, stepsDone, numSteps };
      const { reservedBytes, before } = plan;
      print('start', { ...counts, policy, reservedBytes, before, device: String(model.device) });
    } else if (event.type === 'step' || event.type === 'evaluation') print(event.type, event.metrics);
    else if (event.type === 'sample') print('sample', event.sample);
    else if (event.type === 'skip') print('skip', { message: event.message });
    else if (event.type === 'warning') print('warning', event.warning);
    else if (event.type === 'end') {
      const { finished, outDir, peakBytes } = event.result;
      print('end', { finished, outDir, peakBytes, memory, llama3: compareLlama3() });
    }
  };
}

function compareRun(config: RunConfig, start: RunStart): MemoryComparison {
  return compareMemory(comparedStep(config, start));
}
