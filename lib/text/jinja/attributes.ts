// x.y and x[y], as in jinja2's sandbox: nothing of JavaScript's objects can be reached.
import type { Budget } from './budget.ts';
import { Bytes } from './bytes.ts';
import { lengthOf, pointAt, pointsOf, sliceOf } from './characters.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { format } from './format.ts';
import { like } from './html.ts';
import { METHODS } from './methods.ts';
import { toIndex } from './numbers.ts';
import { bind } from './signature.ts';
import { STR_METHODS } from './str_methods.ts';
import { repr } from './to_text.ts';
import {
  Builtin,
  isInt,
  isNumber,
  isString,
  listOf,
  type Markup,
  Obj,
  Range,
  Tuple,
  textIn,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** Methods that change lists and dicts, which the sandbox does not allow. */
const CHANGING: Record<string, ReadonlySet<string>> = {
  list: new Set(['append', 'extend', 'insert', 'remove', 'reverse', 'sort']),
  dict: new Set(['clear', 'pop', 'popitem', 'setdefault', 'update']),
};

/** Attributes of every Python object, which the sandbox does not allow. */
const INTERNAL =
  /^__(class|delattr|dir|doc|eq|format|ge|getattribute|getstate|gt|hash|init|init_subclass|le|lt|ne|new|reduce|reduce_ex|repr|setattr|sizeof|str|subclasshook)__$/;

/** object.name: the attribute, or if there is none the item of that name. */
export function getAttribute(budget: Budget, object: Value, name: string): Value {
  let found = attributeOf(budget, object, name);
  if (found === undefined) found = itemOf(budget, object, name);
  return found === undefined ? missing(budget, object, name) : found;
}

/** object[key]: the item, or if there is none the attribute of that name. */
export function getItem(budget: Budget, object: Value, key: Value): Value {
  let found = itemOf(budget, object, key);
  if (found === undefined && isString(key)) found = attributeOf(budget, object, textIn(key));
  return found === undefined ? missing(budget, object, key) : found;
}

/** The attribute only; undefined if there is none. */
export function attributeOf(budget: Budget, object: Value, name: string): Value | undefined {
  if (object instanceof Undefined) return name.startsWith('__') ? undefined : object.attribute();
  const type = typeName(object);
  if (name.startsWith('__') && INTERNAL.test(name) && type !== 'Namespace')
    return new Undefined(`access to attribute '${name}' is unsafe.`);
  if (Object.hasOwn(CHANGING, type) && CHANGING[type].has(name)) {
    return new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`);
  }
  const method = METHODS.get(type)?.get(name) ?? (isString(object) ? STR_METHODS.get(name) : undefined);
  if (method) {
    return new Builtin((_, args) => method.run(budget, object, ...bind(name, method.parameters, args)));
  }
  if (isString(object) && (name === 'format' || name === 'format_map')) return formatMethod(object, name);
  if (object instanceof Bytes && BYTES_METHOD.test(name)) {
    throw new TemplateError(`the method ${name} of bytes is not supported`);
  }
  if (isNumber(object)) return numberAttribute(object, name);
  return object instanceof Obj && !name.startsWith('_') ? object.attribute(name) : undefined;
}

/** Methods of Python's bytes other than decode and hex. */
const BYTES_METHOD =
  /^(capitalize|center|count|endswith|expandtabs|find|fromhex|index|is(alnum|alpha|ascii|digit|lower|space|title|upper)|join|l?strip|ljust|lower|maketrans|r?partition|remove(prefix|suffix)|replace|rfind|rindex|rjust|r?split|rstrip|splitlines|startswith|swapcase|title|translate|upper|zfill)$/;

function formatMethod(object: string | Markup, name: string): Builtin {
  return new Builtin((budget, args) => {
    let given = args;
    if (name === 'format_map') {
      const [map] = bind(name, ['/map'], args);
      if (!(map instanceof Dict)) throw new TemplateError('format_map() takes a dict');
      given = { positional: [], named: new Map([...map.entries()].map(([key, value]) => [String(key), value])) };
    }
    return format(budget, object, given, { getAttribute, getItem });
  });
}

function numberAttribute(value: Value, name: string): Value | undefined {
  if (name === 'real') return typeof value === 'boolean' ? Number(value) : value;
  if (name === 'imag') return 0;
  if (name === 'numerator' && isInt(value)) return value;
  return name === 'denominator' && isInt(value) ? 1 : undefined;
}

function itemOf(budget: Budget, object: Value, key: Value): Value | undefined {
  if (object instanceof Dict || object instanceof Undefined) return object.item(key);
  if (typeof key !== 'number' && typeof key !== 'boolean') return object instanceof Obj ? object.item(key) : undefined;
  const index = Number(key);
  if (!Number.isInteger(index)) return undefined;
  if (Array.isArray(object)) return object.at(index);
  if (object instanceof Tuple) return object.items.at(index);
  if (isString(object)) {
    budget.text(textIn(object).length);
    const point = pointAt(textIn(object), index);
    return point === undefined ? undefined : like(object, point);
  }
  if (object instanceof Range) {
    const at = index < 0 ? index + object.length : index;
    return at >= 0 && at < object.length ? object.at(at) : undefined;
  }
  return object instanceof Obj ? object.item(key) : undefined;
}

function missing(budget: Budget, object: Value, key: Value): Undefined {
  const what = object === null ? 'None' : `${typeName(object)} object`;
  if (typeof key === 'string') return new Undefined(`'${what}' has no attribute '${key}'`);
  return new Undefined(`${what} has no element ${isNumber(key) ? repr(budget, key) : 'of that key'}`);
}

export function isSliceable(value: Value): value is string | Markup | Value[] | Tuple | Range | Bytes {
  return isString(value) || Array.isArray(value) || [Tuple, Range, Bytes].some((kind) => value instanceof kind);
}

/** object[begin:end:step]; null for a bound that is absent. */
export function slice(budget: Budget, object: Value, bounds: readonly Value[]): Value {
  if (object instanceof Undefined) return object.item();
  if (!isSliceable(object)) {
    throw new TemplateError(`'${typeName(object)}' object cannot be sliced`);
  }
  const [begin, end, given] = bounds.map((bound) => (bound === null ? null : toIndex(bound, 'a bound of a slice')));
  const step = given ?? 1;
  if (step === 0) throw new TemplateError('slice step cannot be zero');
  if (isString(object)) budget.text(textIn(object).length);
  const text = isString(object) ? textIn(object) : '';
  const length = isString(object) ? lengthOf(text) : object.length;
  const clamp = (bound: number | null, otherwise: number) => {
    if (bound === null) return otherwise;
    const index = bound < 0 ? bound + length : bound;
    return step > 0 ? Math.min(Math.max(index, 0), length) : Math.min(Math.max(index, -1), length - 1);
  };
  const from = clamp(begin, step > 0 ? 0 : length - 1);
  const to = clamp(end, step > 0 ? length : -1);
  if (object instanceof Range) return new Range(object.at(from), object.at(to), object.step * step);
  if (isString(object) && step === 1) return like(object, sliceOf(text, from, Math.max(from, to)));
  const all = isString(object) ? pointsOf(text) : listOf(budget, object);
  const count = Math.max(0, Math.ceil((to - from) / step));
  budget.container(count);
  const picked = Array.from({ length: count }, (_, i) => all[from + i * step]);
  if (isString(object)) return like(object, picked.join(''));
  if (object instanceof Bytes) return new Bytes(Uint8Array.from(picked as number[]));
  return object instanceof Tuple ? new Tuple(picked) : picked;
}
