#!/usr/bin/env node
// The command line: `minisequence COMMAND`.
import { Command, Option } from 'commander';
import { exportTypes } from '../export/gguf_elements.ts';
import { packageInfo } from '../io/package_info.ts';
import { formatOptions } from '../train/options.ts';
import { numberFrom } from './arguments.ts';
import { doctor } from './doctor.ts';
import { runExport } from './export.ts';
import { runGenerate } from './generate.ts';
import { ranksFrom } from './launch.ts';
import { runMerge } from './merge.ts';
import { bytesFrom, runPlan } from './plan.ts';
import { runPreview } from './preview.ts';
import { runReport } from './report.ts';
import { runTrain } from './train.ts';

const ignoredFields =
  'fields of config.json or adapter_config.json that this package does not know and that change no number';
/** Where a default of `generate` comes from. */
const ofModel = "default: the model's generation_config.json, else";

// Standard output is for results; @huggingface/hub reports downloads by console.debug.
console.debug = console.error;

/** An option with a few values, the first of which is the default. */
const oneOf = (flags: string, description: string, values: [string, ...string[]]) =>
  new Option(flags, description).choices(values).default(values[0]);

const { version, description } = packageInfo();
const program = new Command('minisequence').version(version).description(description);

program
  .command('train')
  .description('train a model by a configuration file')
  .requiredOption('--config <file>', 'YAML or JSON; its options are listed below')
  .option('--set <key=value...>', "override an option, e.g. --set sequenceLength=4096 data.files='[my.txt]'")
  .option('--out <dir>', "folder of the run: report.html, metrics.jsonl, the model (overrides 'outDir')")
  .option('--resume', "continue from the last checkpoint in the run's folder, if there is one", false)
  .option('--allow-other-machine', 'with --resume: even if results will differ in their last bits', false)
  .option('--gpus <n>', 'train on n GPUs of this machine, or all; with device cpu on n processes', ranksFrom)
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
  .addOption(new Option('--quantization <method>', 'nf4: projections in 4 bits').choices(['nf4']))
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
  .addOption(
    new Option(
      '--quantization <method>',
      "of the projections that it goes into: nf4 (then written in bfloat16) or none (default: what the adapter's file says)",
    ).choices(['nf4', 'none']),
  )
  .option('--ignore-fields <name...>', ignoredFields)
  .action(runMerge);

program
  .command('export')
  .description('write a model with its tokenizer and chat template for llama.cpp')
  .requiredOption('--model <folder>', "a model in HuggingFace's layout, or its name on the Hub")
  .requiredOption('--gguf <file>', 'the GGUF file that is written')
  .addOption(new Option('--type <type>', 'of matrices; vectors are in f32').choices(exportTypes).default('bf16'))
  .option('--ignore-fields <name...>', ignoredFields)
  .action(runExport);

program
  .command('plan')
  .description('predict the memory of a training step to the byte, and the longest sequences that fit')
  .requiredOption('--model <model>', 'a folder, a config.json, or a preset such as Llama-3-8B')
  .requiredOption('--memory <bytes>', 'what a step may reserve, e.g. 78GiB of an 80 GB GPU; used as given', bytesFrom)
  .option('--host-memory <bytes>', 'what a step may take of the host for inputs of layers; default: nothing', bytesFrom)
  .option('--sequence-length <T>', 'tokens of a sequence', numberFrom({ min: 1, isInteger: true }))
  .option('--max', 'the longest sequences that fit, in multiples of 1,024 tokens', false)
  .option('--batch-size <B>', 'sequences', numberFrom({ min: 1, isInteger: true }), 1)
  .addOption(oneOf('--dtype <dtype>', 'of parameters and activations', ['bfloat16', 'float32']))
  .addOption(oneOf('--gradient-dtype <dtype>', 'of gradients', ['float32', 'bfloat16']))
  .option('--lora <rank>', 'adapters of this rank instead of all parameters', numberFrom({ min: 1, isInteger: true }))
  .option('--4bit', 'with --lora: frozen projections in 4 bits (model.quantization nf4)', false)
  .addOption(oneOf('--state-bits <bits>', "of AdamW's states", ['32', '16', '8']))
  .option('--no-master-weights', 'no f32 copy of bf16 parameters')
  .option('--in-backward', 'each parameter is updated in the backward, and its gradient freed', false)
  .addOption(
    new Option('--paper', "the paper's own setting: bf16 Adam in the backward, each layer recomputed, mini-sequences")
      .default(false)
      .conflicts(['dtype', 'gradientDtype', 'lora', '4bit', 'stateBits', 'masterWeights', 'inBackward']),
  )
  .option('--packed', 'sequences of several documents', false)
  .option(
    '--gpus <n>',
    "GPUs that share the optimizer's states (parallel.shard optimizer); the figures are those of one of them",
    numberFrom({ min: 1, isInteger: true }),
    1,
  )
  .addOption(oneOf('--device <kind>', "cuda with cuDNN's attention, or this machine's CPU", ['cuda', 'cpu']))
  .option('--html <file>', 'write a page: memory by length for each way to train, and through the step')
  .option('--ignore-fields <name...>', ignoredFields)
  .option('--json', 'print one JSON object', false)
  .action(runPlan);

program
  .command('report')
  .description("make report.html in a run's folder anew, also while it runs")
  .argument('<folder>', 'of the run')
  .option('--open', 'open it in the browser', false)
  .option('--follow', 'make it again every 5 seconds until the run ends; the page loads itself again', false)
  .action(runReport);

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
