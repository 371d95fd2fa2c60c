// Where a variable lies while the template runs.
import type { Frame, State } from './frame.ts';
import type { Ref, Symbols } from './symbols.ts';
import { Obj, type Value } from './values.ts';

/** A function of the template: it has a frame of its own each time that it runs. */
export class FunctionScope {
  readonly #outer: FunctionScope | null;
  /** Variables of this level and deeper ones are of this function, those before of functions around it. */
  readonly #level: number;
  readonly #slots = new Map<string, number>();
  /** Loops around the statement that is compiled. */
  loops = 0;
  /** Parts of expressions that are compiled so far. */
  nodes = 0;

  constructor(outer: FunctionScope | null, level: number) {
    this.#outer = outer;
    this.#level = level;
  }

  /** How many variables it has, once it is compiled. */
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

/** Where code stands. */
export interface Place {
  symbols: Symbols;
  scope: FunctionScope;
  /** Whether assignments are of the whole template. */
  isTop: boolean;
  /** Within an if: unknown filters are an error only once they are reached. */
  isSoft: boolean;
  escaping: StaticEscaping;
}

/** What is known of {% autoescape %} from the text of the template. */
export interface StaticEscaping {
  /** Whether what is printed becomes HTML. */
  isOn: boolean;
  /** Whether a variable decides it: `isOn` is of constants alone then. */
  isVolatile: boolean;
}

/** What holds for what is no constant. */
export const isEscaping = ({ isOn, isVolatile }: StaticEscaping, state: State): boolean =>
  isVolatile ? state.isEscaping : isOn;

/** Gives the variables of a scope what they begin with. */
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

/** What jinja2 leaves in the parameters of a scope: a macro that outlives its loop prints it. */
class Missing extends Obj {
  readonly typeName = 'MissingType';

  override repr() {
    return 'missing';
  }
}

const MISSING = new Missing();

/** Takes the values of a scope away at its end: closures in it see nothing then. */
export function leave({ symbols, scope }: Place): (frame: Frame) => void {
  const writes = symbols.loads.map(
    ([ref, { from }]) => [scope.write(ref), from === 'parameter' ? MISSING : undefined] as const,
  );
  return (frame) => {
    for (const [write, value] of writes) write(frame, value);
  };
}
