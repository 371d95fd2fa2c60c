// A run's configuration: one schema gives the types, the defaults, the checks and the documentation.
import { z } from 'zod';
import { FUSED_MODULES, LORA_MODULES } from '../models/adapter.ts';
import { canOffload } from '../models/offload.ts';
import { RECOMPUTE } from '../models/policy.ts';
import { hasSlots } from '../models/segments.ts';
import { LEAST_EPS } from '../optim/adamw.ts';
import { CLIPPINGS, clippingProblem } from '../optim/clip.ts';
import { isVariableName } from '../text/saved_template.ts';
import { BUILTIN, renamedValue, withNewNames } from './renamed_options.ts';
import { unknownKeys } from './unknown_keys.ts';

const positive = z.int().positive();
const chunkSize = z.union([z.literal('auto'), positive], { error: "must be 'auto' or a positive integer" });

const bytesError = "must be a positive number of bytes or like '8GiB'";
const bytes = z
  .union([positive, z.string().regex(/^\d+(\.\d+)? ?([KMGT]i?B|B)$/, bytesError)], { error: bytesError })
  .transform(toBytes)
  .pipe(positive);

const runFields = z.strictObject({
  model: z
    .union(
      [
        z.strictObject({
          path: z.string().describe("a folder in HuggingFace's layout, or its name on the Hub"),
          ignoreFields: z
            .array(z.string())
            .optional()
            .describe(
              "unknown fields of its config.json, or of lora.from's adapter_config.json, to ignore: they must change no number",
            ),
          quantization: z
            .literal('nf4')
            .optional()
            .describe(
              'nf4: projections of attention and MLP become frozen weights in 4 bits while they are read; needs lora',
            ),
        }),
        z.strictObject({
          config: z.record(z.string(), z.unknown()).describe('fields of config.json, to start from random weights'),
        }),
      ],
      {
        error: 'must be either { path: FOLDER } (with quantization: nf4) or { config: { … fields of config.json … } }',
      },
    )
    .describe('the model'),
  tokenizer: z
    .string()
    .optional()
    .describe("path of a tokenizer.json, or 'bytes'; default: the model folder's, else bytes"),
  data: z.strictObject({
    files: z
      .array(z.string())
      .min(1)
      .describe(
        'files, folders and patterns: records in .jsonl, .json, .csv, .tsv or .parquet; else text, one document a file',
      ),
    validation: z
      .union([
        z.strictObject({ files: z.array(z.string()).min(1).describe('documents to validate on') }),
        z.strictObject({
          fraction: z
            .number()
            .gt(0)
            .lt(1)
            .describe('share of the records (a text is one; a single text is split by sequences)'),
        }),
      ])
      .optional()
      .describe('what is not trained on but validated on'),
    packing: z
      .union([z.boolean(), z.literal('auto')])
      .default('auto')
      .describe(
        'several documents in one sequence, each attending only to itself; auto: if there are several documents',
      ),
    trainOnPrompts: z.boolean().default(false).describe("train on prompts and the user's turns too"),
    trainOnLastAnswer: z.boolean().default(false).describe('train only on the last answer of a conversation'),
    chatTemplate: z.string().optional().describe("path of a Jinja template; default: the model's own"),
    templateVariables: z
      .record(z.string().refine(isVariableName, 'no template can read a variable of this name'), z.json())
      .optional()
      .describe("variables of the chat template, such as { enable_thinking: false }; a record's own override them"),
    templateDate: z.iso
      .date()
      .optional()
      .describe('the date for chat templates that write one, YYYY-MM-DD; default: the day when the data are tokenised'),
  }),
  lora: z
    .strictObject({
      from: z
        .string()
        .optional()
        .describe(
          'folder of an adapter to continue training, with its modules, ranks, factors and dropout; excludes the other lora options',
        ),
      rank: positive.optional().describe("rows of a new adapter's A"),
      alpha: z.number().optional().describe('the adapter is multiplied by alpha / rank; default: rank'),
      dropout: z.number().min(0).lt(1).optional().describe('LoRA dropout probability; default: 0'),
      modules: z
        .array(z.enum([...LORA_MODULES, ...FUSED_MODULES]))
        .min(1)
        .optional()
        .describe(
          'projections that get an adapter; default: all but lm_head, in mixtures of experts those of attention',
        ),
      useRslora: z.boolean().optional().describe('multiply by alpha / sqrt(rank) instead; default: false'),
    })
    .refine(({ from, rank }) => (from === undefined) !== (rank === undefined), {
      error: 'needs rank, for new adapters, or from, for those of a folder',
    })
    .refine(({ from, ...others }) => from === undefined || Object.keys(others).length === 0, {
      error: 'from excludes the other options: the folder gives them',
    })
    .optional()
    .describe('train adapters, not the model'),
  sequenceLength: positive.describe('T, in tokens'),
  batchSize: positive.default(1).describe('sequences of a micro-batch'),
  accumulationSteps: positive.default(1).describe('micro-batches of a step'),
  epochs: z.number().positive().optional().describe('passes over the data; default: 1 unless maxSteps is given'),
  maxSteps: positive.optional().describe('most steps of the run; it ends earlier if epochs end it'),
  optimizer: z
    .strictObject({
      learningRate: z.number().nonnegative().default(3e-4).describe('at the end of the warm-up'),
      beta1: z.number().min(0).lt(1).default(0.9).describe('decay of the mean of gradients'),
      beta2: z.number().min(0).lt(1).default(0.95).describe('decay of the mean of squared gradients'),
      eps: z.number().min(LEAST_EPS).default(1e-8).describe('added to the root of the mean square; more than 0'),
      weightDecay: z.number().nonnegative().default(0.1).describe('of parameters of 2 or more dimensions'),
      stateBits: z
        .union([z.literal(32), z.literal(16), z.literal(8)], { error: 'must be 32, 16 or 8' })
        .default(32)
        .describe(
          'bits of each element of the two moments; 8: in blocks of 256 with a scale, 2.03 bytes a parameter for both',
        ),
      inBackward: z
        .boolean()
        .default(false)
        .describe(
          'each parameter is updated, and its gradient freed, inside the backward; needs accumulationSteps 1; a gradient that is not finite ends the run at its last checkpoint',
        ),
    })
    .prefault({}),
  schedule: z
    .strictObject({
      type: z.enum(['cosine', 'linear', 'constant']).default('cosine').describe('of the learning rate'),
      warmupSteps: z.int().nonnegative().default(0).describe('steps of a linear rise'),
      minLearningRate: z
        .number()
        .nonnegative()
        .default(0)
        .describe('what the decay approaches: the last step is one step above it'),
    })
    .prefault({}),
  maxGradNorm: z.number().nonnegative().default(1).describe('norm that gradients are clipped to; 0: no clipping'),
  clipping: z
    .enum(CLIPPINGS)
    .optional()
    .describe(
      'what is bounded by maxGradNorm: global, the norm of all; previous, that of the step before; parameter, that of each; none, whatever maxGradNorm is; default: global, or previous with optimizer.inBackward',
    ),
  masterWeights: z
    .boolean()
    .default(true)
    .describe('updates go to an f32 copy of bfloat16 parameters; false: parameters are rounded stochastically instead'),
  dtype: z.enum(['float32', 'bfloat16']).default('float32').describe('of parameters and activations'),
  gradientDtype: z
    .enum(['float32', 'bfloat16'])
    .default('float32')
    .describe('of the gradients of bfloat16 parameters; bfloat16 takes half the memory and needs accumulationSteps 1'),
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, "must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    .default('auto')
    .describe('cpu, cuda, cuda:N, or auto: cuda if it can be used'),
  attention: z
    .enum(['auto', BUILTIN, 'cudnn'], { error: renamedValue })
    .default('auto')
    .describe('kernels on CUDA: builtin gives the same bits in every run, cudnn is faster on Hopper and newer'),
  matmul: z
    .enum(['auto', BUILTIN], { error: renamedValue })
    .default('auto')
    .describe('matrix products on CUDA: auto is cuBLASLt if found; builtin needs only a driver'),
  tuneMatmul: z
    .boolean()
    .default(true)
    .describe("time cuBLASLt's algorithms at the first product of a kind; choices are kept in the user's cache folder"),
  deterministic: z
    .boolean()
    .default(false)
    .describe('the same bits in every run on CUDA: built-in attention, no timed choice of algorithms'),
  threads: positive.optional().describe('CPU threads; default: all cores'),
  memoryLimit: bytes.optional().describe("most that the device's arena may reserve"),
  hostMemoryLimit: bytes
    .optional()
    .describe('most host memory for inputs of layers, pinned on CUDA; a run takes what its plan needs; default: none'),
  chunkSizes: z
    .strictObject({
      mlp: chunkSize.default('auto').describe('tokens of a mini-sequence of the MLP'),
      loss: chunkSize.default('auto').describe('tokens of a mini-sequence of head and loss'),
    })
    .prefault({}),
  mlpSave: z.enum(['auto', 'input', 'gateUp']).default('auto').describe('what the MLP keeps for its backward'),
  recompute: z
    .enum(['auto', ...RECOMPUTE])
    .default('auto')
    .describe(
      "what the backward recomputes: nothing; a layer except attention's output; also inputs of most layers; a layer; segments of layers",
    ),
  slots: z
    .union([z.literal('auto'), positive], { error: "must be 'auto' or a positive integer" })
    .default('auto')
    .describe('of recompute: segments and attentionSegments; inputs of layers that have place at once'),
  keepAttention: z
    .union([z.literal('auto'), z.boolean()], { error: "must be 'auto', true or false" })
    .default('auto')
    .describe("of recompute: segments; a segment that is worked on keeps attention's output, which takes more slots"),
  attentionHeadGroups: z
    .union([z.literal('auto'), positive], { error: "must be 'auto' or a positive integer" })
    .default('auto')
    .describe('groups of heads that the backward takes attention in; a divisor of the key/value heads'),
  offloadedInputs: z
    .union([z.literal('auto'), z.int().nonnegative()], { error: "must be 'auto' or an integer from 0" })
    .default('auto')
    .describe(
      'of recompute: attention, layer and segments; how many inputs of layers, the first ones, lie in host memory',
    ),
  evaluation: z
    .strictObject({
      everySteps: positive.optional().describe('loss and perplexity on data.validation, also at the end'),
    })
    .prefault({}),
  samples: z
    .strictObject({
      everySteps: positive.optional().describe('texts that continue the prompts, in samples.jsonl'),
      prompts: z.array(z.string()).default([]).describe('of the samples'),
      maxTokens: positive.default(64).describe('of a sample'),
      temperature: z.number().nonnegative().default(0.8).describe('of the samples'),
    })
    .prefault({}),
  checkpoint: z
    .strictObject({
      everySteps: positive
        .optional()
        .describe('interval of checkpoints, also at the end; without it, only when a run is stopped'),
      keepLast: positive.default(2).describe('checkpoints to keep; older ones are removed'),
      keepBest: z.boolean().default(true).describe('keep a checkpoint of the best validation loss'),
    })
    .prefault({}),
  nonFinite: z
    .enum(['stop', 'skip'])
    .default('stop')
    .describe('when a loss or gradient is NaN or infinite; with optimizer.inBackward skip is for losses alone'),
  parallel: z
    .strictObject({
      shard: z
        .enum(['none', 'optimizer'])
        .default('none')
        .describe(
          'what ranks share: optimizer, the states and master weights: each has a part, updates that part of the weights, and sends it to the others',
        ),
      sequence: positive
        .default(1)
        .describe(
          'ranks that share each sequence, a divisor of their number and of the query heads: longer sequences, batchSize · accumulationSteps · ranks / sequence of them a step',
        ),
    })
    .prefault({}),
  seed: z.int().nonnegative().default(0).describe('of the first weights and of the order of sequences'),
  tensorboard: z
    .boolean()
    .default(false)
    .describe('event files of TensorBoard in the folder tensorboard, some 200 bytes a step'),
  outDir: z.string().default('runs/latest').describe('config.yaml, metrics.jsonl and the model are written here'),
});

/** Variables of templates that a user must not set. */
const RENDERED = ['messages', 'add_generation_prompt'];

export const runSchema = runFields
  .refine(({ dtype, gradientDtype }) => gradientDtype === 'float32' || dtype === 'bfloat16', {
    path: ['gradientDtype'],
    error: "'bfloat16' needs dtype 'bfloat16'",
  })
  .refine(({ accumulationSteps, gradientDtype }) => gradientDtype === 'float32' || accumulationSteps === 1, {
    path: ['gradientDtype'],
    error: "'bfloat16' is for one micro-batch a step: accumulationSteps must be 1",
  })
  .refine(({ model, lora }) => !('quantization' in model && model.quantization) || lora !== undefined, {
    path: ['model.quantization'],
    error: 'freezes the projections, which no step could change: give lora.rank or lora.from, or leave it out',
  })
  .refine(({ recompute, slots }) => slots === 'auto' || hasSlots(recompute), {
    path: ['slots'],
    error: "are those of recompute: 'segments' and 'attentionSegments'",
  })
  .refine(({ recompute, keepAttention }) => keepAttention !== true || recompute === 'segments', {
    path: ['keepAttention'],
    error: "is that of recompute: 'segments'",
  })
  .refine(({ recompute, offloadedInputs: K }) => K === 'auto' || K === 0 || canOffload(recompute), {
    path: ['offloadedInputs'],
    error: "are those of recompute: 'attention', 'layer' and 'segments'",
  })
  .refine(({ hostMemoryLimit, offloadedInputs: K }) => K === 'auto' || K === 0 || hostMemoryLimit !== undefined, {
    path: ['offloadedInputs'],
    error: 'need hostMemoryLimit, which says how much of the host they may take',
  })
  .superRefine(({ accumulationSteps, clipping, maxGradNorm, optimizer: { inBackward } }, context) => {
    if (inBackward && accumulationSteps > 1) {
      context.addIssue({
        code: 'custom',
        path: ['optimizer.inBackward'],
        message:
          'true frees each gradient in the backward of a micro-batch, so that those of ' +
          `accumulationSteps ${accumulationSteps} cannot be added up: accumulationSteps 1 with a larger batchSize, or false`,
      });
    }
    const problem = clippingProblem({ clipping, maxGradNorm, inBackward }, 'optimizer.inBackward');
    if (problem) context.addIssue({ code: 'custom', path: ['clipping'], message: problem });
  })
  .refine(({ data, evaluation }) => evaluation.everySteps === undefined || data.validation !== undefined, {
    path: ['evaluation.everySteps'],
    error: 'needs data.validation, which says what to validate on',
  })
  .refine(({ data }) => !(data.trainOnPrompts && data.trainOnLastAnswer), {
    path: ['data.trainOnLastAnswer'],
    error: 'and data.trainOnPrompts say different things',
  })
  .refine(({ data }) => !RENDERED.some((name) => Object.hasOwn(data.templateVariables ?? {}, name)), {
    path: ['data.templateVariables'],
    error: `must not have ${RENDERED.join(' or ')}, which come with each conversation`,
  })
  .refine(({ samples }) => samples.everySteps === undefined || samples.prompts.length > 0, {
    path: ['samples.everySteps'],
    error: 'needs samples.prompts, which it continues',
  });

/** A checked configuration with all defaults. */
export type RunConfig = z.output<typeof runSchema>;
/** What a user writes. */
export type RunConfigInput = z.input<typeof runSchema>;

/** Thrown for a configuration that does not fit the schema; the message lists every problem with its place. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** Checks a configuration and fills in defaults. */
export function parseConfig(input: unknown, source = 'config'): RunConfig {
  const result = runSchema.safeParse(input);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => {
    const place = issue.path.join('.') || 'the whole';
    return issue.code === 'unrecognized_keys' ? unknownKeys(runSchema, issue) : `${place}: ${issue.message}`;
  });
  throw new ConfigError(`${source}: ${problems.join('; ')}`);
}

/** The configuration of a checkpoint, by today's names: options that are newer have their defaults, under which nothing has changed. */
export function storedConfig(stored: RunConfig): RunConfig {
  const result = runSchema.safeParse(withNewNames(stored));
  return result.success ? result.data : stored;
}

function toBytes(value: number | string): number {
  if (typeof value === 'number') return value;
  const [, number, unit] = /^([\d.]+) ?(.*)$/.exec(value)!;
  const power = 'BKMGT'.indexOf(unit![0]!);
  return Math.floor(Number(number) * (unit!.includes('i') ? 1024 : 1000) ** power);
}
