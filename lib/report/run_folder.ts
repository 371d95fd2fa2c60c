// Reads what a run has written so far. Its files may be under way, and are read as what they hold.
import { join } from 'node:path';
import { readIfThere } from '../io/read.ts';
import { FACTS_FILE, type RunFacts } from './run_facts.ts';

/** A step of metrics.jsonl; null where it is not finite, or not there. */
export interface StepLine {
  step: number;
  loss: number | null;
  gradNorm: number | null;
  learningRate: number | null;
  tokensPerSecond: number | null;
  peakBytes: number | null;
  seconds: number | null;
}

export interface ValidationLine {
  step: number;
  validationLoss: number | null;
}

export interface SampleLine {
  step: number;
  prompt: string;
  text: string;
}

export interface RunRecord {
  folder: string;
  facts: RunFacts;
  /** config.yaml as it stands. */
  config: string;
  steps: StepLine[];
  validations: ValidationLine[];
  samples: SampleLine[];
}

/** @throws Error where the folder is not that of a run with run.json */
export async function readRun(folder: string): Promise<RunRecord> {
  const facts = await readFacts(folder);
  const config = (await readIfThere(join(folder, 'config.yaml'))) ?? '';
  const metrics = await linesOf(join(folder, 'metrics.jsonl'));
  const steps = metrics.filter((line) => 'loss' in line).map(stepOf);
  const validations = metrics
    .filter((line) => 'validationLoss' in line)
    .map((line) => ({ step: Number(line.step), validationLoss: numberIn(line.validationLoss) }));
  const samples = (await linesOf(join(folder, 'samples.jsonl'))).map(({ step, prompt, text }) => ({
    step: Number(step),
    prompt: String(prompt),
    text: String(text),
  }));
  return { folder, facts, config, steps, validations, samples };
}

async function readFacts(folder: string): Promise<RunFacts> {
  const path = join(folder, FACTS_FILE);
  const text = await readIfThere(path);
  if (text === null)
    throw new Error(`${path}: is not there: ${folder} is no folder of a run, or of one that has not begun`);
  let facts: Partial<RunFacts> | null;
  try {
    facts = JSON.parse(text) as Partial<RunFacts> | null;
  } catch (error) {
    throw new Error(`${path}: is no JSON: ${(error as Error).message}`, { cause: error });
  }
  if (facts?.format !== 1) throw new Error(`${path}: has the format ${facts?.format}, this version reads 1`);
  return facts as RunFacts;
}

function stepOf(line: Record<string, unknown>): StepLine {
  const { step, loss, gradNorm, learningRate, tokensPerSecond, peakBytes, seconds } = line;
  return {
    step: Number(step),
    loss: numberIn(loss),
    gradNorm: numberIn(gradNorm),
    learningRate: numberIn(learningRate),
    tokensPerSecond: numberIn(tokensPerSecond),
    peakBytes: numberIn(peakBytes),
    seconds: numberIn(seconds),
  };
}

const numberIn = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/** Objects with a step, one a line; the last line may be half written. */
async function linesOf(path: string): Promise<Record<string, unknown>[]> {
  const text = (await readIfThere(path)) ?? '';
  return text.split('\n').flatMap((line) => {
    try {
      const parsed = JSON.parse(line) as Record<string, unknown> | null;
      return parsed && Number.isInteger(parsed.step) ? [parsed] : [];
    } catch {
      return [];
    }
  });
}
