// A page of one file: styles, scripts and data inside, and nothing fetched from anywhere.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { html, jsonMarkup, Markup } from './html.ts';
import type { Plot } from './plots.ts';

/** In this order: each uses those before it. */
const SCRIPTS = ['format.js', 'plot.js', 'memory.js', 'main.js'];

export interface PageOptions {
  title: string;
  body: Markup;
  /** What the plots of the body show. */
  plots: readonly Plot[];
  /** Loads itself again after so many seconds. */
  refreshSeconds?: number;
}

/** The whole file. Scripts run by their hash alone: none that a text could bring in would. */
export function page({ title, body, plots, refreshSeconds }: PageOptions): string {
  const { style, script, licence } = assets();
  const hash = createHash('sha256').update(script).digest('base64');
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`;
  const refresh = refreshSeconds === undefined ? null : html`<meta http-equiv="refresh" content="${refreshSeconds}">\n`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${refresh}<title>${title}</title>
<!-- The plots are drawn by uPlot.
${new Markup(licence.replaceAll('--', '- -'))}
-->
<style>${new Markup(style)}</style>
</head>
<body>
${body}
<script type="application/json" id="data">${jsonMarkup({ plots })}</script>
<script>${new Markup(script)}</script>
</body>
</html>
`.text;
}

let loaded: { style: string; script: string; licence: string } | null = null;

function assets(): { style: string; script: string; licence: string } {
  if (loaded) return loaded;
  const own = (name: string) => readFileSync(new URL(`./page/${name}`, import.meta.url), 'utf8');
  const { resolve } = createRequire(import.meta.url);
  const uPlot = (name: string) => readFileSync(resolve(`uplot/${name}`), 'utf8');
  const script = [uPlot('dist/uPlot.iife.min.js'), ...SCRIPTS.map(own)].join('\n');
  if (/<\/script|<!--/i.test(script)) throw new Error('report: a script of the page would end its own element');
  loaded = {
    style: uPlot('dist/uPlot.min.css') + own('style.css'),
    script: `(() => {\n${script}\n})();`,
    licence: uPlot('LICENSE'),
  };
  return loaded;
}
