// Macros, and the bodies of call blocks.
import type { Budget } from './budget.ts';
import { quote } from './characters.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { type Arguments, Obj, Tuple, Undefined, type Value } from './values.ts';

export interface MacroForm {
  /** Null for a call block. */
  name: string | null;
  params: readonly string[];
  /** Whether the body reads `caller`, `kwargs` or `varargs` and it is no parameter. */
  takesCaller: boolean;
  takesNamed: boolean;
  takesMore: boolean;
}

/** The arguments of a macro; undefined for a parameter without one. */
export type Given = ReadonlyMap<string, Value | undefined>;

export class Macro extends Obj {
  readonly typeName = 'Macro';
  readonly #form: MacroForm;
  readonly #run: (given: Given) => Value;

  constructor(form: MacroForm, run: (given: Given) => Value) {
    super();
    this.#form = form;
    this.#run = run;
  }

  override get isCallable() {
    return true;
  }

  override repr(): string {
    return `<Macro ${this.#form.name === null ? 'anonymous' : quote(this.#form.name)}>`;
  }

  override attribute(name: string): Value | undefined {
    const { params, takesCaller, takesNamed, takesMore } = this.#form;
    const attributes = new Map<string, Value>([
      ['name', this.#form.name],
      ['arguments', new Tuple([...params])],
      ['caller', takesCaller],
      ['explicit_caller', params.includes('caller')],
      ['catch_kwargs', takesNamed],
      ['catch_varargs', takesMore],
    ]);
    return attributes.get(name);
  }

  override call(_: Budget, { positional, named }: Arguments): Value {
    const { params, takesCaller, takesNamed, takesMore } = this.#form;
    const what = `macro ${this.#form.name ?? ''}`;
    const rest = new Map(named);
    const given = new Map<string, Value | undefined>();
    for (const [i, param] of params.entries()) {
      given.set(param, i < positional.length ? positional[i] : rest.get(param));
      if (i >= positional.length) rest.delete(param);
    }
    if (takesCaller && !params.includes('caller')) {
      given.set('caller', rest.get('caller') ?? new Undefined('No caller defined'));
      rest.delete('caller');
    }
    if (takesNamed) given.set('kwargs', new Dict(rest));
    else if (rest.size > 0) throw new TemplateError(`${what} takes no keyword argument '${[...rest.keys()][0]}'`);
    if (takesMore) given.set('varargs', new Tuple(positional.slice(params.length)));
    else if (positional.length > params.length) {
      throw new TemplateError(`${what} takes not more than ${params.length} argument(s)`);
    }
    return this.#run(given);
  }
}
