// The page of a plan: memory by length for each way to train, and the memory of the planned step as it goes.
import { formatBytes } from '../runtime/memory/statistics.ts';
import type { MemoryByLength } from '../step/by_length.ts';
import type { StepTimeline } from '../step/timeline.ts';
import { html, type Markup } from './html.ts';
import { timelineSection } from './memory_section.ts';
import { page } from './page.ts';
import { figure, type LinePlot, type Plot, type Series, whole } from './plots.ts';

export interface PlanFacts {
  model: string;
  parameters: number;
  B: number;
  T: number;
  /** What a step may reserve. */
  memoryLimit: number;
  /** What the planned step is and why, as sentences. */
  policy: readonly string[];
  byLength: MemoryByLength;
  timeline: StepTimeline;
}

/** The whole page. */
export function planPage(facts: PlanFacts): string {
  const { model, parameters, B, T, memoryLimit, policy, timeline } = facts;
  const plots: Plot[] = [];
  const tiles: [string, string][] = [
    ['Parameters', whole(parameters)],
    [B === 1 ? 'Tokens of a step' : `Tokens of each of ${whole(B)} sequences`, whole(T)],
    ['Memory of a step', formatBytes(timeline.memory.reservedBytes)],
    ['It may reserve', formatBytes(memoryLimit)],
  ];
  const body = html`<header><h1>${model}</h1><p class="status">${policy.join('; ')}</p>
<dl class="tiles">${tiles.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></header>
<main>
${lengths(facts, plots)}
${timelineSection(timeline, plots)}
</main>`;
  return page({ title: `${model}, planned - minisequence`, body, plots });
}

/** Two plots over the same lengths: the ways to train beside one another, and what the planner tries. */
function lengths({ byLength, memoryLimit }: PlanFacts, plots: Plot[]): Markup {
  const { lengths: x, plain, recomputation, rungs } = byLength;
  const chunked = rungs.find(({ recompute, mlpSave }) => recompute === 'none' && mlpSave === 'input');
  const least = x.map((_, i) => Math.min(...rungs.flatMap(({ bytes }) => bytes[i] ?? [])));
  const ways: Series[] = [
    { label: 'plain', values: plain },
    { label: 'recomputation', values: recomputation },
    ...(chunked ? [{ label: 'mini-sequences', values: chunked.bytes }] : []),
    { label: 'the least that is planned', values: least },
  ];
  const each = rungs.map(({ recompute, mlpSave, bytes }) => ({
    label: `recompute ${recompute}, mlpSave ${mlpSave}`,
    values: bytes,
  }));
  const section = (id: string, title: string, series: Series[], summary: string) => {
    const limit = { label: 'it may reserve', value: memoryLimit };
    const plot: LinePlot = { kind: 'lines', id, title, xLabel: 'Tokens', unit: 'bytes', x, series, limit, sync: 'T' };
    plots.push(plot);
    return html`<section aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${figure(plot, summary)}</section>`;
  };
  const ofWays =
    'What a step reserves, as predicted: everything saved and nothing chunked, each layer computed again, MLP and head over mini-sequences, and the least of all that the planner tries.';
  return html`${section('ways', 'Memory by length', ways, ofWays)}
${section('rungs', 'Memory by length, each rung', each, "The planner's smallest policy of each kind, without host memory; the fastest kinds come first.")}`;
}
