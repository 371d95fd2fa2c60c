// The options of a run as a list, read off the schema: for --help and the documentation.
import { z } from 'zod';
import { runSchema } from './config.ts';

export interface Option {
  /** As --set takes it: 'optimizer.beta1'. */
  key: string;
  type: string;
  /** Null: none. */
  default: string | null;
  description: string;
}

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  anyOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  items?: Schema;
  default?: unknown;
  description?: string;
}

/** Every option, in the schema's order. */
export function listOptions(): Option[] {
  return optionsOf(z.toJSONSchema(runSchema, { io: 'input' }) as Schema, '');
}

function optionsOf(schema: Schema, prefix: string): Option[] {
  if (schema.anyOf?.some(({ properties }) => properties))
    return schema.anyOf.flatMap((part) => optionsOf(part, prefix));
  return Object.entries(schema.properties ?? {}).flatMap(([name, part]) => {
    const nested = optionsOf(part, `${prefix}${name}.`);
    if (nested.length > 0) return nested;
    return {
      key: prefix + name,
      type: typeOf(part),
      default: part.default === undefined ? null : String(part.default),
      description: part.description ?? '',
    };
  });
}

function typeOf({ type, anyOf, enum: values, const: value, items }: Schema): string {
  if (anyOf) return anyOf.map(typeOf).join(' or ');
  if (values) return values.join(', ');
  if (value !== undefined) return String(value);
  return items ? `list of ${typeOf(items)}s` : (type ?? 'any');
}

/** One line an option. */
export function formatOptions(): string {
  const options = listOptions();
  const width = Math.max(...options.map(({ key }) => key.length));
  return options
    .map(({ key, type, default: value, description }) => {
      const note = value === null ? type : `${type}; default ${value}`;
      return `  ${key.padEnd(width)}  ${description} (${note})`;
    })
    .join('\n');
}
