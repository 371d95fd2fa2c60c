// Which modules the fields of adapter_config.json mean, by PEFT's rules (get_pattern_key in its utils/other.py, and
// check_target_module_exists in its tuners/tuners_utils.py). Names are those of modules in the model that PEFT wrapped:
// 'model.layers.0.self_attn.q_proj'.
import { createContext, runInContext } from 'node:vm';

/** Expressions come from files of strangers: those of a field that backtrack without end are stopped. */
const MAX_MATCH_MS = 2000;

/** For each Python expression each name's match, or null. Under 'u', syntax that JavaScript would read otherwise is an error. */
function matchesOf(expressions: readonly string[], names: readonly string[]): (RegExpExecArray | null)[][] {
  const context = createContext({ expressions, names });
  const code = `expressions.map((expression) => {
    const pattern = new RegExp(expression, 'u');
    return names.map((name) => pattern.exec(name));
  })`;
  try {
    return runInContext(code, context, { timeout: MAX_MATCH_MS }) as (RegExpExecArray | null)[][];
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new RangeError(
      code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? `its expressions take over ${MAX_MATCH_MS} ms to match` : message,
    );
  }
}

/** For each name the value of the first key that is its end, from a dot on, or matches that as an expression; else `fallback`. */
export function valuesByPattern(
  patterns: Readonly<Record<string, number>>,
  names: readonly string[],
  fallback: number,
): Map<string, number> {
  const keys = Object.keys(patterns);
  const matches = matchesOf(
    keys.map((key) => `^(?:.*\\.)?(?:${key})$`),
    names,
  );
  return new Map(
    names.map((name, i) => {
      const first = matches.findIndex((of) => of[i] !== null);
      return [name, first < 0 ? fallback : patterns[keys[first]!]!];
    }),
  );
}

/** The fields that choose modules. */
export interface TargetFields {
  /** Names or their ends; an expression of whole names; 'all-linear'. null: not given. */
  targets: readonly string[] | string | null;
  excluded: readonly string[] | string | null;
  /** Numbers of layers; null: all. */
  layers: readonly number[] | null;
  /** Expressions of what stands before a layer's number; empty: anything. */
  layersPatterns: readonly string[];
}

/** The names that the fields do not choose. */
export function untargeted({ targets, excluded, layers, layersPatterns }: TargetFields, names: string[]): string[] {
  const isExcluded = excluded === null ? null : isTarget(excluded, names);
  // A tool that adapts the head too calls that 'all-linear' as well.
  const isAll = targets === null || (typeof targets === 'string' && targets.toLowerCase() === 'all-linear');
  const isChosen = isAll ? null : isTarget(targets, names);
  const numbers = layers && typeof targets !== 'string' ? layerNumbers(layersPatterns, names) : null;
  return names.filter((name, i) => {
    if (isExcluded?.[i] || isChosen?.[i] === false) return true;
    const isWholeName = Array.isArray(targets) && targets.includes(name); // taken whatever its layer
    return numbers !== null && !isWholeName && !layers!.includes(numbers[i]!);
  });
}

function isTarget(targets: readonly string[] | string, names: readonly string[]): boolean[] {
  if (typeof targets === 'string') return matchesOf([`^(?:${targets})$`], names)[0]!.map((match) => match !== null);
  return names.map((name) => targets.some((target) => name === target || name.endsWith(`.${target}`)));
}

/** NaN where a name has no layer's number. */
function layerNumbers(patterns: readonly string[], names: readonly string[]): number[] {
  const before = patterns.length > 0 ? patterns : ['[^.]*'];
  const matches = matchesOf(
    before.map((pattern) => `^.*?\\.(?:${pattern})\\.(?<layer>\\d+)\\.`),
    names,
  );
  return names.map((_, i) => Number(matches.find((of) => of[i])?.[i]?.groups?.layer));
}
