// The memory of one step as it goes, for a page.
import { categories, formatBytes } from '../runtime/memory/statistics.ts';
import type { StepTimeline } from '../step/timeline.ts';
import { html, type Markup, table } from './html.ts';
import { figure, type Plot, type StackPlot, whole } from './plots.ts';

/** The plot of a step's bytes, with the tensors that hold most of them at its peak. */
export function timelineSection(timeline: StepTimeline, plots: Plot[]): Markup {
  const { points, peak, groups, memory } = timeline;
  const top = points[peak]!;
  const noteOf = ({ group, count, bytes }: (typeof top.largest)[number]) => {
    const { category, tensors } = groups[group]!;
    return [formatBytes(bytes), category, `${whole(count)} x ${tensors}`];
  };
  const plot: StackPlot = {
    kind: 'stack',
    id: 'timeline',
    title: 'Memory through one step',
    xLabel: 'Allocations and releases',
    unit: 'bytes',
    x: points.map(({ at }) => at),
    series: categories.flatMap((label, i) => {
      const values = points.map(({ bytes }) => bytes[i]!);
      return values.some((value) => value > 0) ? [{ label, values }] : [];
    }),
    start: peak,
    parts: partsOf(timeline),
    notes: points.map(({ largest }) => largest.map((each) => noteOf(each).join(', '))),
  };
  plots.push(plot);
  const summary = `In use, by category, as predicted; at most ${formatBytes(memory.peakBytes)}, ${formatBytes(memory.reservedBytes)} with the holes between blocks.`;
  const rows = top.largest.map((each) => {
    const [bytes, category, tensors] = noteOf(each);
    return [tensors!, category!, bytes!];
  });
  return html`<section aria-labelledby="timeline-title"><h2 id="timeline-title">${plot.title}</h2>
${figure(plot, summary)}
${table({ caption: 'What holds most at the peak', head: ['Tensors', 'Category', 'Bytes'], rows })}</section>`;
}

/** Forward and backward of each micro-batch, by `at` of their first point. */
function partsOf({ forwards }: StepTimeline): StackPlot['parts'] {
  const isOne = forwards.length === 1;
  return forwards.flatMap(({ begin, end }, i) => [
    { label: isOne ? 'forward' : `forward ${i + 1}`, begin },
    { label: i === forwards.length - 1 ? 'backward and update' : 'backward', begin: end },
  ]);
}
