// What a plot of a page shows, and the text and table that stand for it.
import { formatBytes } from '../runtime/memory/statistics.ts';
import { type Content, html, type Markup, table } from './html.ts';

/** How values are written: 'rate' a second, 'small' with an exponent. */
export type Unit = 'number' | 'small' | 'rate' | 'bytes' | 'count';

export interface Series {
  label: string;
  /** null where there is none. */
  values: readonly (number | null)[];
}

interface PlotOfAll {
  /** Of its element. */
  id: string;
  title: string;
  /** What x counts. */
  xLabel: string;
  x: readonly number[];
  unit: Unit;
  series: readonly Series[];
}

/** Lines over steps, lengths, …; plots with one `sync` show the same x. */
export interface LinePlot extends PlotOfAll {
  kind: 'lines';
  sync?: string;
  /** A line across, such as a limit. */
  limit?: { label: string; value: number };
}

/** Areas upon one another, with notes on each point. */
export interface StackPlot extends PlotOfAll {
  kind: 'stack';
  /** Where it begins: index of a point. */
  start: number;
  /** Parts of the x axis, which begin at a value of x. */
  parts: readonly { label: string; begin: number }[];
  /** What stands beside each point. */
  notes: readonly string[][];
}

export type Plot = LinePlot | StackPlot;

/** Most rows of the table behind a plot. */
const MAX_ROWS = 40;

/** The place of a plot, with the text that a screen reader says, and its numbers as a table that opens. */
export function figure(plot: Plot, summary: string): Markup {
  return html`<figure>
<div class="plot" id="${plot.id}" tabindex="0" role="group" aria-roledescription="plot" aria-label="${plot.title}. ${summary} Arrow keys read its values."></div>
<figcaption><p>${summary}</p><div class="readout" id="${plot.id}-readout"></div></figcaption>
<details><summary>${plot.title} as a table</summary>
${tableOf(plot)}
</details>
</figure>`;
}

function tableOf({ title, x, xLabel, series, unit }: Plot): Markup {
  const shown = spread(x.length, MAX_ROWS);
  const caption = shown.length < x.length ? `${title}: ${shown.length} of ${x.length} points` : title;
  const rows = shown.map((i): Content[] => [whole(x[i]!), ...series.map(({ values }) => written(values[i], unit))]);
  return table({ caption, head: [xLabel, ...series.map(({ label }) => label)], rows });
}

/** Indices from 0 to length - 1, at most `count`, the first and the last among them. */
export function spread(length: number, count: number): number[] {
  if (length <= count) return Array.from({ length }, (_, i) => i);
  return Array.from({ length: count }, (_, i) => Math.round((i * (length - 1)) / (count - 1)));
}

export const whole = (count: number) => Math.round(count).toLocaleString('en');

/** A value as people read it; the page's own script writes it in the same way. */
export function written(value: number | null | undefined, unit: Unit): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return 'none';
  if (unit === 'bytes') return formatBytes(value);
  if (unit === 'rate' || unit === 'count') return whole(value);
  if (unit === 'small') return value === 0 ? '0' : value.toExponential(3);
  return value.toPrecision(5);
}
