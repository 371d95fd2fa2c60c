// A run's configuration in a file, and options of the command line that go over it.
import { readFile } from 'node:fs/promises';
import { parse as parseYaml } from 'yaml';
import { ConfigError, parseConfig, type RunConfig } from './config.ts';

/**
 * Reads a YAML (or JSON) file.
 * @param overrides lines `a.b=value`, the value in YAML
 */
export async function readRunConfig(path: string, overrides: readonly string[] = []): Promise<RunConfig> {
  let input: unknown;
  try {
    input = parseYaml(await readFile(path, 'utf8'));
  } catch (error) {
    throw new ConfigError(`${path}: ${(error as Error).message}`, { cause: error });
  }
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw new ConfigError(`${path}: is not a mapping of options`);
  for (const override of overrides) applyOverride(input as Record<string, unknown>, override);
  return parseConfig(input, path);
}

function applyOverride(config: Record<string, unknown>, override: string): void {
  const equals = override.indexOf('=');
  if (equals < 1) throw new ConfigError(`--set ${override}: must be key=value`);
  const keys = override.slice(0, equals).split('.');
  const last = keys.pop()!;
  let place = config;
  for (const key of keys) {
    if (!Object.hasOwn(place, key) || typeof place[key] !== 'object' || place[key] === null) place[key] = {};
    place = place[key] as Record<string, unknown>;
  }
  try {
    place[last] = parseYaml(override.slice(equals + 1));
  } catch (error) {
    throw new ConfigError(`--set ${override}: ${(error as Error).message}`, { cause: error });
  }
}
