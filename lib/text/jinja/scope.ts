// Decides where a variable is stored while the template runs.
import type { Frame, State } from './frame.ts';
import type { Ref, Symbols } from './symbols.ts';
import { Obj, type Value } from './values.ts';

/** A function of the template. It has its own frame each time that it runs. */
export class FunctionScope {
  readonly #outer: FunctionScope | null;
  /** Variables of this level and deeper ones belong to this function, others to functions around it. */
  readonly #level: number;
  readonly #slots = new Map<string, number>();
  /** Number of loops around the statement that is being compiled. */
  loops = 0;
  /** Number of parts of expressions that have been compiled. */
  nodes = 0;

  constructor(outer: FunctionScope | null, level: number) {
    this.#outer = outer;
    this.#level = level;
  }

  /** Number of its variables; known once it is compiled. */
  get size(): number {
    return this.#slots.size;
  }

  read(ref: Ref): (frame: Frame) => Value | undefined {
    const { hops, index } = this.#place(ref);
    if (hops === 0) return (frame) => frame.slots[index];
    if (hops === 1) return (frame) => frame.parent!.slots[index];
    return (frame) => up(frame, hops).slots[index];
  }

  write(ref: Ref): (frame: Frame, value: Value | undefined) => void {
    const { hops, index } = this.#place(ref);
    return (frame, value) => {
      up(frame, hops).slots[index] = value;
    };
  }

  #place({ name, level }: Ref): { hops: number; index: number } {
    let scope: FunctionScope = this;
    let hops = 0;
    while (level < scope.#level && scope.#outer) {
      scope = scope.#outer;
      hops += 1;
    }
    const key = `${level} ${name}`;
    const index = scope.#slots.get(key) ?? scope.#slots.size;
    scope.#slots.set(key, index);
    return { hops, index };
  }
}

function up(frame: Frame, hops: number): Frame {
  let at = frame;
  for (let i = 0; i < hops; i++) at = at.parent!;
  return at;
}

/** The place of the code that is being compiled. */
export interface Place {
  symbols: Symbols;
  scope: FunctionScope;
  /** Whether assignments are at the top level of the template. */
  isTop: boolean;
  /** Whether it is inside an if, where an unknown filter is an error only if it is reached. */
  isSoft: boolean;
  escaping: StaticEscaping;
}

/** What is known about {% autoescape %} at compile time. */
export interface StaticEscaping {
  /** Whether printed values are escaped. */
  isOn: boolean;
  /** Whether a variable decides it; `isOn` is then valid for constants only. */
  isVolatile: boolean;
}

/** Whether values that are no constants are escaped. */
export const isEscaping = ({ isOn, isVolatile }: StaticEscaping, state: State): boolean =>
  isVolatile ? state.isEscaping : isOn;

/** Sets the variables of a scope to their first values. */
export function enter({ symbols, scope }: Place): (frame: Frame) => void {
  const steps = symbols.loads.flatMap(([ref, load]): ((frame: Frame) => void)[] => {
    if (load.from === 'parameter') return [];
    const write = scope.write(ref);
    if (load.from === 'context') return [(frame) => write(frame, frame.context.resolve(ref.name))];
    if (load.from === 'nothing') return [(frame) => write(frame, undefined)];
    const read = scope.read(load.ref);
    return [(frame) => write(frame, read(frame))];
  });
  if (steps.length === 1) return steps[0];
  return (frame) => {
    for (const step of steps) step(frame);
  };
}

/** The value that jinja2 leaves in the parameters of a scope; a macro that outlives its loop prints it. */
class Missing extends Obj {
  readonly typeName = 'MissingType';

  override repr() {
    return 'missing';
  }
}

const MISSING = new Missing();

/** Removes the values of a scope at its end: closures in it then see none. */
export function leave({ symbols, scope }: Place): (frame: Frame) => void {
  const writes = symbols.loads.map(
    ([ref, { from }]) => [scope.write(ref), from === 'parameter' ? MISSING : undefined] as const,
  );
  return (frame) => {
    for (const [write, value] of writes) write(frame, value);
  };
}
