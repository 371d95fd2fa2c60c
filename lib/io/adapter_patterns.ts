// Which modules the fields of adapter_config.json select, by PEFT's rules (get_pattern_key in its utils/other.py, and
// check_target_module_exists in its tuners/tuners_utils.py). Names are those of modules in the model that PEFT wrapped:
// 'model.layers.0.self_attn.q_proj'.
import { createContext, runInContext } from 'node:vm';

/** Time limit for a field's expressions. They come from untrusted files and might backtrack forever. */
const MAX_MATCH_MS = 2000;

/** Match, or null, of each name for each Python expression. With the flag 'u', syntax that JavaScript reads differently is an error. */
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

/** For each name, the value of the first key that equals or matches its end (after a dot), else `fallback`. */
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

/** The fields that select modules. */
export interface TargetFields {
  /** Names or ends of names; an expression for whole names; or 'all-linear'. null: not given. */
  targets: readonly string[] | string | null;
  excluded: readonly string[] | string | null;
  /** Indices of layers; null: all. */
  layers: readonly number[] | null;
  /** Expressions for the part before a layer's index; empty: anything. */
  layersPatterns: readonly string[];
}

/** The names that the fields do not select. */
export function untargeted({ targets, excluded, layers, layersPatterns }: TargetFields, names: string[]): string[] {
  const isExcluded = excluded === null ? null : isTarget(excluded, names);
  // Some tools also write 'all-linear' if the head has an adapter.
  const isAll = targets === null || (typeof targets === 'string' && targets.toLowerCase() === 'all-linear');
  const isChosen = isAll ? null : isTarget(targets, names);
  const numbers = layers && typeof targets !== 'string' ? layerNumbers(layersPatterns, names) : null;
  return names.filter((name, i) => {
    if (isExcluded?.[i] || isChosen?.[i] === false) return true;
    const isWholeName = Array.isArray(targets) && targets.includes(name); // selected in any layer
    return numbers !== null && !isWholeName && !layers!.includes(numbers[i]!);
  });
}

function isTarget(targets: readonly string[] | string, names: readonly string[]): boolean[] {
  if (typeof targets === 'string') return matchesOf([`^(?:${targets})$`], names)[0]!.map((match) => match !== null);
  return names.map((name) => targets.some((target) => name === target || name.endsWith(`.${target}`)));
}

/** Each name's layer index; NaN if it has none. */
function layerNumbers(patterns: readonly string[], names: readonly string[]): number[] {
  const before = patterns.length > 0 ? patterns : ['[^.]*'];
  const matches = matchesOf(
    before.map((pattern) => `^.*?\\.(?:${pattern})\\.(?<layer>\\d+)\\.`),
    names,
  );
  return names.map((_, i) => Number(matches.find((of) => of[i])?.[i]?.groups?.layer));
}
