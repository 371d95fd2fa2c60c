// report.html of a run: its curves, the memory of a step, the plan beside what was measured, and what it ran on.
import { basename, join, resolve } from 'node:path';
import { writeWhole } from '../io/whole_file.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import { html, type Markup, table } from './html.ts';
import { timelineSection } from './memory_section.ts';
import { page } from './page.ts';
import { figure, type LinePlot, type Plot, type Unit, whole, written } from './plots.ts';
import { type RunRecord, readRun, type StepLine } from './run_folder.ts';

const REPORT_FILE = 'report.html';
/** Most points of a curve. */
const MAX_POINTS = 2000;
/** Samples shown: the last ones. */
const MAX_SAMPLES = 24;

export interface ReportOptions {
  /** The page loads itself again after so many seconds. */
  refreshSeconds?: number;
  /** Whether a run is at work in the folder. @default false */
  isUnderWay?: boolean;
}

/** Writes report.html into the folder of a run, which may be under way, and returns its path and the run as it was read. */
export async function writeReport(
  folder: string,
  options: ReportOptions = {},
): Promise<{ path: string; run: RunRecord }> {
  const run = await readRun(folder);
  const path = join(folder, REPORT_FILE);
  const text = runReport(run, options);
  await writeWhole(path, (handle) => handle.writeFile(text));
  return { path, run };
}

/** The page of a run. */
export function runReport(run: RunRecord, { refreshSeconds, isUnderWay = false }: ReportOptions = {}): string {
  const name = basename(resolve(run.folder));
  const plots: Plot[] = [];
  const body = html`<header><h1>${name}</h1><p class="status">${statusOf(run, isUnderWay)}</p>${tiles(run)}</header>
<main>
${curves(run, plots)}
${memory(run, plots)}
${samples(run)}
${configuration(run)}
${machine(run)}
</main>`;
  return page({ title: `${name} - minisequence`, body, plots, refreshSeconds });
}

/** Where a run stands, in one line. */
export function statusOf({ facts: { steps, end }, steps: lines }: RunRecord, isUnderWay: boolean): string {
  const place = `step ${whole(lines.at(-1)?.step ?? 0)} of ${whole(steps.total)}`;
  if (isUnderWay) return `Under way: ${place}`;
  if (!end) return `Ended without a word, as a killed process does: ${place}`;
  if (end.error !== null) return `Ended by an error at ${place}: ${end.error}`;
  return end.finished ? `Finished: ${place}` : `Stopped: ${place}`;
}

/** The most that a step reserved; null: there was none. */
function measured(steps: readonly StepLine[]): number | null {
  return steps.reduce<number | null>(
    (most, { peakBytes }) => (peakBytes === null ? most : Math.max(most ?? 0, peakBytes)),
    null,
  );
}

function tiles({ facts, steps, validations }: RunRecord): Markup {
  const last = steps.at(-1);
  const losses = validations.flatMap(({ validationLoss }) => (validationLoss === null ? [] : [validationLoss]));
  const peak = measured(steps);
  const all: [string, string][] = [
    ['Loss', written(last?.loss, 'number')],
    ['Best validation loss', losses.length > 0 ? written(Math.min(...losses), 'number') : 'none'],
    ['Tokens a second', written(median(steps.map(({ tokensPerSecond }) => tokensPerSecond)), 'rate')],
    ['Memory of a step', peak === null ? formatBytes(facts.plan.miniSequence) : formatBytes(peak)],
    ['Against plain training', `${(facts.plan.plain / facts.plan.miniSequence).toFixed(2)} x less`],
    ['Time', duration(last?.seconds ?? 0)],
  ];
  return html`<dl class="tiles">${all.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function median(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  return known[known.length >> 1] ?? null;
}

function duration(seconds: number): string {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return parts.map((part) => String(part).padStart(2, '0')).join(':');
}

const CURVES: [id: string, title: string, field: keyof StepLine, unit: Unit][] = [
  ['learning-rate', 'Learning rate', 'learningRate', 'small'],
  ['gradient-norm', 'Gradient norm before clipping', 'gradNorm', 'number'],
  ['tokens-per-second', 'Tokens a second', 'tokensPerSecond', 'rate'],
];

function curves({ steps, validations }: RunRecord, plots: Plot[]): Markup {
  if (steps.length === 0) return html`<section><h2>Loss</h2><p>No step is done yet.</p></section>`;
  const kept = thinned(steps);
  const note =
    kept.length < steps.length
      ? ` ${kept.length} of ${steps.length} steps are drawn, the highest and lowest losses among them.`
      : '';
  const section = (plot: LinePlot, summary: string) => {
    plots.push(plot);
    return html`<section aria-labelledby="${plot.id}-title"><h2 id="${plot.id}-title">${plot.title}</h2>${figure(plot, summary + note)}</section>`;
  };
  const common = { kind: 'lines', xLabel: 'Step', sync: 'steps' } as const;
  const x = [...new Set([...kept, ...validations].map(({ step }) => step))].sort((a, b) => a - b);
  const losses = new Map(kept.map(({ step, loss }) => [step, loss]));
  const validated = new Map(validations.map(({ step, validationLoss }) => [step, validationLoss]));
  const series = [{ label: 'Loss', values: x.map((step) => losses.get(step) ?? null) }];
  if (validations.length > 0)
    series.push({ label: 'Validation', values: x.map((step) => validated.get(step) ?? null) });
  const loss: LinePlot = { ...common, id: 'loss', title: 'Loss', unit: 'number', x, series };
  const [first, last] = [steps[0]!, steps.at(-1)!];
  return html`${section(loss, `From ${written(first.loss, 'number')} at step ${first.step} to ${written(last.loss, 'number')} at step ${last.step}.`)}
<div class="columns">${CURVES.map(([id, title, field, unit]) => {
    const values = kept.map((line) => line[field]);
    const known = values.filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const summary = `From ${written(low, unit)} to ${written(high, unit)}, at last ${written(values.at(-1), unit)}.`;
    return section(
      { ...common, id, title, unit, x: kept.map(({ step }) => step), series: [{ label: title, values }] },
      summary,
    );
  })}</div>`;
}

/** At most MAX_POINTS steps: of each of equal parts those with the lowest and the highest loss; the first and the last always. */
function thinned(steps: readonly StepLine[]): StepLine[] {
  if (steps.length <= MAX_POINTS) return [...steps];
  const kept = new Set([0, steps.length - 1]);
  const parts = MAX_POINTS / 2 - 1;
  const height = (i: number) => steps[i]!.loss ?? Infinity;
  for (let part = 0; part < parts; part++) {
    const [begin, end] = [part, part + 1].map((i) => Math.floor((i * steps.length) / parts));
    let [low, high] = [begin!, begin!];
    for (let i = begin!; i < end!; i++) {
      if (height(i) < height(low)) low = i;
      if (height(i) > height(high)) high = i;
    }
    kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b).map((i) => steps[i]!);
}

function memory({ facts, steps }: RunRecord, plots: Plot[]): Markup {
  const { plain, unchunked, miniSequence } = facts.plan;
  const peak = measured(steps);
  const row = (name: string, bytes: number) => [name, formatBytes(bytes), `${(plain / bytes).toFixed(2)} x`];
  const rows = [
    row('Everything saved, nothing chunked', plain),
    row('Same policy, nothing chunked', unchunked),
    row('This run, predicted', miniSequence),
    ...(peak === null ? [] : [row('This run, measured', peak)]),
  ];
  const agreement =
    peak === null
      ? 'No step has been measured yet.'
      : peak === miniSequence
        ? 'The prediction is right to the byte.'
        : `Measured and predicted differ by ${formatBytes(Math.abs(peak - miniSequence))}.`;
  return html`${timelineSection(facts.timeline, plots)}
<section aria-labelledby="plan-title"><h2 id="plan-title">Plan and measurement</h2>
<p>${agreement} Limit of the device: ${facts.machine.memoryLimit === null ? 'none' : formatBytes(facts.machine.memoryLimit)}.</p>
${table({ caption: 'Bytes that one step reserves', head: ['Step', 'Bytes', 'Less than plain'], rows })}
${table({ caption: 'Policy', head: ['Part', 'Value'], rows: Object.entries(facts.policy).map(([name, value]) => [name, String(value)]) })}
</section>`;
}

function samples({ samples }: RunRecord): Markup | null {
  if (samples.length === 0) return null;
  const shown = samples.slice(-MAX_SAMPLES).reverse();
  const note =
    shown.length < samples.length
      ? html`<p>The last ${shown.length} of ${samples.length}; samples.jsonl has all.</p>`
      : null;
  return html`<section aria-labelledby="samples-title"><h2 id="samples-title">Samples</h2>${note}
${shown.map(({ step, prompt, text }) => html`<article><h3>Step ${step}</h3><pre><b>${prompt}</b>${text}</pre></article>`)}</section>`;
}

function configuration({ config }: RunRecord): Markup {
  return html`<section aria-labelledby="configuration-title"><h2 id="configuration-title">Configuration</h2>
<details open><summary>config.yaml</summary><pre tabindex="0">${config}</pre></details></section>`;
}

function machine({ facts: { machine, versions, model, data, started, end } }: RunRecord): Markup {
  const rows: [string, string][] = [
    ['Processor', machine.name],
    ['Device', machine.device],
    ['System', machine.system],
    ['minisequence', versions.minisequence],
    ['Node', versions.node],
    [
      'Model',
      `${model.type}, ${model.layers} layers, ${whole(model.parameters)} parameters, ${whole(model.trained)} trained`,
    ],
    [
      'Data',
      `${whole(data.tokens)} tokens in ${whole(data.sequences)} ${data.isPacked ? 'packed ' : ''}sequences of ${whole(data.longestSequence)}`,
    ],
    ['Started', started],
    ['Ended', end?.at ?? 'not yet'],
  ];
  return html`<section aria-labelledby="machine-title"><h2 id="machine-title">Machine, model and data</h2>
${table({ caption: 'What the run ran on', head: ['Part', 'Value'], rows })}</section>`;
}
