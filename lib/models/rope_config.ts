// Reads the rotary position embedding from config.json.
import { brief } from '../brief.ts';
import { Fields, type HuggingFaceConfig } from './fields.ts';
import { isEmpty } from './inert_fields.ts';

/** A rotary position embedding. Angles are computed in f64; `maxPositions` and `originalMaxPositions` are in tokens. */
export type RopeConfig =
  | { type: 'default'; theta: number }
  | { type: 'linear'; theta: number; factor: number }
  | {
      type: 'dynamic';
      theta: number;
      factor: number;
      maxPositions: number;
      /** Up to maxPositions, theta is multiplied by alpha^(D/(D-2)) (HunYuan). @default 1 */
      alpha?: number;
    }
  | {
      type: 'llama3';
      theta: number;
      factor: number;
      lowFrequencyFactor: number;
      highFrequencyFactor: number;
      originalMaxPositions: number;
    }
  | {
      type: 'yarn';
      theta: number;
      factor: number;
      originalMaxPositions: number;
      betaFast: number;
      betaSlow: number;
      /** Factor on rotated queries and keys. */
      attentionFactor: number;
      /** Whether the ends of the ramp are rounded to whole dimensions. */
      truncate: boolean;
    }
  | {
      type: 'longrope';
      theta: number;
      /** Divisors of the frequencies of sequences up to originalMaxPositions, one for each pair. */
      shortFactors: readonly number[];
      /** The same for longer sequences. */
      longFactors: readonly number[];
      originalMaxPositions: number;
      /** Factor on rotated queries and keys. */
      attentionFactor: number;
    }
  /** The first `rotated` pairs are those of 'default', divided by `factor`; the others do not turn. */
  | { type: 'proportional'; theta: number; factor: number; rotated: number };

/** What a family reads besides the fields of all families. */
export interface RopeOptions {
  /** Whether it reads partial_rotary_factor, by rotatedSize(). @default false: must be 1 */
  isPartial?: boolean;
  /** Fields of rope_parameters that it reads itself, by ropeFields(). */
  others?: readonly string[];
  /** rope_parameters where the config has neither these nor rope_scaling. */
  defaults?: HuggingFaceConfig;
  /** Types of its own, by rope_type. */
  types?: Readonly<Record<string, (rope: Fields, theta: number) => RopeConfig>>;
}

/** Reads both spellings: rope_parameters, or rope_theta and rope_scaling. */
export function ropeConfig(fields: Fields, defaultTheta = 10000, options: RopeOptions = {}): RopeConfig {
  const rope = ropeFields(fields, options.defaults);
  const beside = fields.get('rope_theta');
  const theta = rope.positive('rope_theta', fields.positive('rope_theta', defaultTheta));
  if (beside !== undefined && beside !== theta) {
    fields.fail('rope_theta', beside, `that of rope_parameters, ${theta}`);
  }
  if (!options.isPartial) {
    rope.only('partial_rotary_factor', 1);
    fields.only('partial_rotary_factor', 1);
  } else rope.get('partial_rotary_factor');
  for (const name of [...INERT, ...(options.others ?? [])]) rope.get(name);
  const config = ofType(fields, rope, { theta, types: options.types ?? {} });
  rope.finish();
  return config;
}

/** Columns of a head that are rotated, from partial_rotary_factor: that part of the head, rounded down. */
export function rotatedSize(fields: Fields, headSize: number, fallback = 1): number {
  const rope = ropeFields(fields);
  const beside = fields.get('partial_rotary_factor');
  const factor = rope.positive('partial_rotary_factor', fields.positive('partial_rotary_factor', fallback));
  if (beside !== undefined && beside !== factor) {
    fields.fail('partial_rotary_factor', beside, `that of rope_parameters, ${factor}`);
  }
  const size = Math.floor(headSize * factor);
  if (size < 2 || size > headSize || size % 2 !== 0) {
    fields.fail(
      'partial_rotary_factor',
      factor,
      `an even number of at most ${headSize} columns of each head, not ${size}`,
    );
  }
  return size;
}

/** The fields of rope_scaling and rope_parameters together, or the defaults where there are none. */
export function ropeFields(fields: Fields, defaults: HuggingFaceConfig = {}): Fields {
  const scaling = fields.object('rope_scaling');
  const parameters = fields.object('rope_parameters');
  for (const [name, value] of Object.entries(scaling)) {
    const other = Object.hasOwn(parameters, name) ? parameters[name] : value;
    if (other !== value) fields.fail(`rope_scaling.${name}`, value, `that of rope_parameters, ${brief(other)}`);
  }
  const own = { ...scaling, ...parameters };
  return new Fields(isEmpty(own) ? defaults : own, 'config.json: rope_parameters', fields.ignored);
}

/** Fields that transformers ignores, except in the types that read them below. */
const INERT = ['attn_factor', 'finetuned', 'max_position_embeddings', 'original_max_position_embeddings'];

function ofType(
  fields: Fields,
  rope: Fields,
  { theta, types }: { theta: number; types: NonNullable<RopeOptions['types']> },
): RopeConfig {
  const legacy = rope.get('type');
  const type = (rope.get('rope_type') ?? legacy ?? 'default') as Exclude<
    RopeConfig['type'],
    'longrope' | 'proportional'
  >;
  if (Object.hasOwn(types, type)) return types[type]!(rope, theta);
  switch (type) {
    case 'default':
      return { type, theta };
    case 'linear':
      return { type, theta, factor: rope.positive('factor') };
    case 'dynamic':
      // transformers takes max_position_embeddings, not original_max_position_embeddings
      return { type, theta, factor: rope.positive('factor'), maxPositions: fields.count('max_position_embeddings') };
    case 'llama3':
      return {
        type,
        theta,
        factor: rope.positive('factor'),
        lowFrequencyFactor: rope.positive('low_freq_factor'),
        highFrequencyFactor: rope.positive('high_freq_factor'),
        originalMaxPositions: rope.count('original_max_position_embeddings'),
      };
    case 'yarn':
      return yarn(fields, rope, theta);
    default:
      return rope.fail(
        'rope_type',
        type,
        `${['default, linear, dynamic, llama3', ...Object.keys(types)].join(', ')} or yarn`,
      );
  }
}

function yarn(fields: Fields, rope: Fields, theta: number): RopeConfig {
  const maxPositions = optional(fields, 'max_position_embeddings');
  const originalMaxPositions = rope.count('original_max_position_embeddings', maxPositions);
  const factor = rope.positive('factor', maxPositions && maxPositions / originalMaxPositions);
  const growth = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const mscale = optional(rope, 'mscale');
  const mscaleAll = optional(rope, 'mscale_all_dim');
  return {
    type: 'yarn',
    theta,
    factor,
    originalMaxPositions,
    betaFast: rope.positive('beta_fast', 32),
    betaSlow: rope.positive('beta_slow', 1),
    attentionFactor: rope.positive(
      'attention_factor',
      mscale && mscaleAll ? growth(mscale) / growth(mscaleAll) : growth(1),
    ),
    truncate: rope.boolean('truncate', true),
  };
}

/** The number in a field; undefined if the field is absent or null. */
function optional(fields: Fields, name: string): number | undefined {
  return fields.get(name) === undefined ? undefined : fields.number(name);
}
