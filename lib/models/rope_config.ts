// Reads the rotary position embedding from config.json.
import { brief } from '../brief.ts';
import { Fields } from './fields.ts';

/** A rotary position embedding. Angles are computed in f64; `maxPositions` and `originalMaxPositions` are in tokens. */
export type RopeConfig =
  | { type: 'default'; theta: number }
  | { type: 'linear'; theta: number; factor: number }
  | { type: 'dynamic'; theta: number; factor: number; maxPositions: number }
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
    };

/** Reads both spellings: rope_parameters, or rope_theta and rope_scaling. */
export function ropeConfig(fields: Fields, defaultTheta = 10000): RopeConfig {
  const scaling = fields.object('rope_scaling');
  const parameters = fields.object('rope_parameters');
  for (const [name, value] of Object.entries(scaling)) {
    const other = Object.hasOwn(parameters, name) ? parameters[name] : value;
    if (other !== value) fields.fail(`rope_scaling.${name}`, value, `that of rope_parameters, ${brief(other)}`);
  }
  const rope = new Fields({ ...scaling, ...parameters }, 'config.json: rope_parameters', fields.ignored);
  const beside = fields.get('rope_theta');
  const theta = rope.positive('rope_theta', fields.positive('rope_theta', defaultTheta));
  if (beside !== undefined && beside !== theta) {
    fields.fail('rope_theta', beside, `that of rope_parameters, ${theta}`);
  }
  rope.only('partial_rotary_factor', 1);
  fields.only('partial_rotary_factor', 1);
  for (const name of INERT) rope.get(name);
  const config = ofType(fields, rope, theta);
  rope.finish();
  return config;
}

/** Fields that transformers ignores, except in the types that read them below. */
const INERT = ['attn_factor', 'finetuned', 'max_position_embeddings', 'original_max_position_embeddings'];

function ofType(fields: Fields, rope: Fields, theta: number): RopeConfig {
  const legacy = rope.get('type');
  const type = (rope.get('rope_type') ?? legacy ?? 'default') as RopeConfig['type'];
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
      return rope.fail('rope_type', type, 'default, linear, dynamic, llama3 or yarn');
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
