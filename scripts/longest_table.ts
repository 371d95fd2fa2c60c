// npm run table: the longest sequences of the paper's five models on one GPU of 80 GB, from the planner, written into
// docs/benchmarks.md between its marks. `--check` writes nothing and fails where that differs.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';
import { decoderConfig, type LongestOptions, longestSteps } from '../lib/index.ts';
import { presetConfig } from '../lib/models/presets.ts';
import { paperSetting } from '../lib/step/plan.ts';
import { replaceBetween } from './marked.ts';

const file = join(import.meta.dirname, '..', 'docs', 'benchmarks.md');

/** What a step may reserve of 80 GB; CUDA and its libraries take the rest. */
const memoryLimit = 78 * 2 ** 30;
const like = { kind: 'cuda', attention: 'cudnn' } as const;
/** More rows than any sequence has: one chunk. */
const whole = { mlpChunkSize: 2 ** 31 - 1, lossChunkSize: 2 ** 31 - 1 };
const segments = { recompute: 'segments', mlpSave: 'input' } as const;
const in8Bits = { ...paperSetting, stateBits: 8, fixed: { recompute: 'layer', mlpSave: 'input' } } as const;

const columns: Record<string, Omit<LongestOptions, 'B' | 'memoryLimit'>> = {
  plain: { ...paperSetting, fixed: { ...whole, recompute: 'none', mlpSave: 'gateUp', attentionHeadGroups: 1 } },
  recomputation: { ...paperSetting, fixed: { ...whole, recompute: 'layer', mlpSave: 'input', attentionHeadGroups: 1 } },
  "the paper's setting": paperSetting,
  '8-bit states': in8Bits,
  'and segments': { ...in8Bits, fixed: segments },
  'and host memory': { ...in8Bits, fixed: segments, hostMemoryLimit: 108 * 2 ** 30 },
};

/** Thousands (of 1,024) of tokens in the paper: plain, with recomputation, with mini-sequences. */
const models: Record<string, string> = {
  'Llama-3-8B': '5K · 14K · 60K',
  'Llama-2-7B': '7K · 45K · 84K',
  'Mistral-7B': '5K · 42K · 70K',
  'Qwen2-7B': '4K · 13K · 74K',
  'Gemma-2-9B': '1.5K · 5K · 36K',
};

/** The row of a model: its longest T in each column, in units of 1,024 tokens. */
export function row(model: string): string {
  const config = decoderConfig(presetConfig(model));
  const longest = Object.values(columns).map((options) => {
    const rungs = longestSteps(config, { ...options, B: 1, like, memoryLimit });
    return `${Math.max(...rungs.map(({ T }) => T)) / 1024}K`;
  });
  return `| ${[model, ...longest, models[model]].join(' | ')} |`;
}

function table(): string {
  const head = ['', ...Object.keys(columns), 'the paper: plain · recomputation · mini-sequences'];
  const rule = `|${' --- |'.repeat(head.length)}`;
  return [`| ${head.join(' | ')} |`, rule, ...Object.keys(models).map(row)].join('\n');
}

function main(): void {
  const text = readFileSync(file, 'utf8');
  const made = replaceBetween(text, 'longest', table(), 'docs/benchmarks.md');
  if (!argv.includes('--check')) writeFileSync(file, made);
  else if (made !== text) throw new Error(`${file}: the table of the longest sequences differs: npm run table`);
}

if (import.meta.filename === argv[1]) main();
