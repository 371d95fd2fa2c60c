#!/usr/bin/env node
// The command line: `minisequence COMMAND`.
import { Command } from 'commander';
import { formatOptions } from '../train/options.ts';
import { doctor } from './doctor.ts';
import { runMerge } from './merge.ts';
import { runTrain } from './train.ts';
import { description, version } from './version.ts';

const program = new Command('minisequence').version(version).description(description);

program
  .command('train')
  .description('train a model as a configuration file says')
  .requiredOption('--config <file>', 'YAML or JSON; its options are listed below')
  .option('--set <key=value...>', "override an option, e.g. --set sequenceLength=4096 data.files='[my.txt]'")
  .option('--out <dir>', "folder of the run: config.yaml, metrics.jsonl, the model (overrides 'outDir')")
  .option('--resume', "go on from the last checkpoint in the run's folder, if there is one", false)
  .option('--json', 'print one JSON object a line', false)
  .addHelpText('after', () => `\nOptions of the configuration file and of --set:\n${formatOptions()}`)
  .action(runTrain);

program
  .command('merge')
  .description('make an adapter part of the model that it was trained on')
  .requiredOption('--model <folder>', "a model in HuggingFace's layout, or its name on the Hub")
  .requiredOption('--adapter <folder>', 'adapter_model.safetensors and adapter_config.json')
  .requiredOption('--out <folder>', 'the merged model is written here')
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
