#!/usr/bin/env node
// The command line: `minisequence COMMAND`.
import { Command } from 'commander';
import { formatOptions } from '../train/options.ts';
import { numberFrom } from './arguments.ts';
import { doctor } from './doctor.ts';
import { runGenerate } from './generate.ts';
import { runMerge } from './merge.ts';
import { runPreview } from './preview.ts';
import { runTrain } from './train.ts';
import { description, version } from './version.ts';

const ignoredFields =
  'fields of config.json or adapter_config.json that this package does not know and that change no number';
/** Where a default of `generate` comes from. */
const ofModel = "default: the model's generation_config.json, else";

// Standard output is for results; @huggingface/hub reports downloads by console.debug.
console.debug = console.error;

const program = new Command('minisequence').version(version).description(description);

program
  .command('train')
  .description('train a model by a configuration file')
  .requiredOption('--config <file>', 'YAML or JSON; its options are listed below')
  .option('--set <key=value...>', "override an option, e.g. --set sequenceLength=4096 data.files='[my.txt]'")
  .option('--out <dir>', "folder of the run: config.yaml, metrics.jsonl, the model (overrides 'outDir')")
  .option('--resume', "continue from the last checkpoint in the run's folder, if there is one", false)
  .option('--allow-other-machine', 'with --resume: even if results will differ in their last bits', false)
  .option('--json', 'print one JSON object a line', false)
  .addHelpText('after', () => `\nOptions of the configuration file and of --set:\n${formatOptions()}`)
  .action(runTrain);

program
  .command('preview')
  .description('show the first sequences of the data, and which of their tokens are trained on')
  .requiredOption('--config <file>', 'of a run')
  .option('--set <key=value...>', 'override an option')
  .option('--examples <n>', 'sequences shown', '3')
  .option('--json', 'print one JSON object a line', false)
  .action(runPreview);

program
  .command('generate')
  .description('continue a text, or answer it')
  .requiredOption('--model <folder>', "a model in HuggingFace's layout, or its name on the Hub")
  .requiredOption('--prompt <text>', 'what is continued; - reads it from standard input')
  .option('--chat', "put the prompt into the model's chat template, as a user's message", false)
  .option('--chat-template <file>', "a Jinja template (default: the adapter's, else the model's)")
  .option('--template-date <day>', 'the day that the template may write, YYYY-MM-DD; default: today')
  .option('--template-variables <json>', 'variables of the template, such as \'{"enable_thinking": false}\'')
  .option('--tools <json>', 'list of functions that the answer may call')
  .option('--adapter <folder>', 'with a LoRA adapter')
  .option('--tokenizer <file>', "tokenizer.json, or 'bytes' (default: the model's)")
  .option('--device <name>', 'auto, cpu, cuda or cuda:N', 'auto')
  .option('--dtype <dtype>', 'float32 or bfloat16 (default: as stored)')
  .option('--ignore-fields <name...>', ignoredFields)
  .option('--max-tokens <n>', 'most tokens to generate (default: 256)', numberFrom({ min: 1, isInteger: true }))
  .option('--temperature <t>', `0: always the likeliest token (${ofModel} 1)`, numberFrom({ min: 0 }))
  .option('--top-k <k>', `only the k likeliest; 0: all (${ofModel} 0)`, numberFrom({ min: 0, isInteger: true }))
  .option('--top-p <p>', `only the likeliest that add up to p (${ofModel} 1)`, numberFrom({ min: 0, max: 1 }))
  .option(
    '--min-p <p>',
    `only those with this share of the likeliest one's (${ofModel} 0)`,
    numberFrom({ min: 0, max: 1 }),
  )
  .option('--repetition-penalty <r>', `for tokens that are in the text already (${ofModel} 1)`, numberFrom({ min: 0 }))
  .option('--seed <n>', 'the same seed gives the same text', numberFrom({ min: 0, isInteger: true }))
  .option('--stop <text...>', 'text that ends it')
  .option('--json', 'print one JSON object a token', false)
  .action(runGenerate);

program
  .command('merge')
  .description('merge an adapter into the model that it was trained on')
  .requiredOption('--model <folder>', "a model in HuggingFace's layout, or its name on the Hub")
  .requiredOption('--adapter <folder>', 'adapter_model.safetensors and adapter_config.json')
  .requiredOption('--out <folder>', 'the merged model is written here')
  .option('--ignore-fields <name...>', ignoredFields)
  .action(runMerge);

program
  .command('doctor')
  .description('versions, devices, memory and libraries; what is missing and how to get it')
  .option('--json', 'print one JSON object', false)
  .action(doctor);

try {
  await program.parseAsync();
} catch (error) {
  console.error(error instanceof Error ? `${error.name}: ${error.message}` : error);
  process.exitCode = 1;
}
