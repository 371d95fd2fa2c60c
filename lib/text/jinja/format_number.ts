// Formats numbers in the forms that printf and Python's format() share.
import { formatFloat } from '../json.ts';
import { TemplateError } from './errors.ts';

/** Largest precision, in digits. */
const MAX_PRECISION = 1000;

export function checkPrecision(precision: number): number {
  if (precision > MAX_PRECISION) throw new TemplateError(`a precision of ${precision} (at most ${MAX_PRECISION})`);
  return precision;
}

/**
 * The digits of a float that is not negative.
 * @param type f, e or g; in upper case for a result in upper case; '' as in repr()
 * @param isAlternate whether g keeps trailing zeros, and the point stays if no digit follows
 */
export function formatFloating(value: number, type: string, precision: number | null, isAlternate = false): string {
  const isUpper = type !== type.toLowerCase();
  const text = floating(value, type.toLowerCase(), precision, isAlternate);
  return isUpper ? text.toUpperCase() : text;
}

function floating(value: number, type: string, precision: number | null, isAlternate: boolean): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return 'inf';
  const digits = checkPrecision(precision ?? 6);
  const point = (text: string) => (isAlternate && !text.includes('.') ? `${text}.` : text);
  if (type === 'f') return point(fixed(value, digits));
  if (type === 'e') return exponential(value, digits, isAlternate);
  const significant = type === '' && precision === null ? null : Math.max(1, digits);
  if (significant === null) return isAlternate ? formatFloat(value).replace(/^\d+(?=e|$)/, '$&.') : formatFloat(value);
  const power = value === 0 ? 0 : Number(scientific(value, significant - 1).split('e')[1]);
  const isFixed = power >= -4 && power < significant - (type === '' ? 1 : 0);
  const text = isFixed ? fixed(value, significant - 1 - power) : exponential(value, significant - 1, isAlternate);
  if (isAlternate) return isFixed ? point(text) : text;
  const short = text.replace(/(\.\d*?)0+(?=e|$)/, '$1').replace(/\.(?=e|$)/, '');
  return type === '' && isFixed && !short.includes('.') ? `${short}.0` : short;
}

/** The exact decimal value, rounded half to even like in C. JavaScript's toFixed() stops at 100 digits and at 1e21. */
function fixed(value: number, digits: number): string {
  const [numerator, power] = fractionOf(value);
  const scaled = numerator * 10n ** BigInt(digits);
  const rounded = power >= 0 ? scaled << BigInt(power) : roundedShift(scaled, BigInt(-power));
  const text = rounded.toString().padStart(digits + 1, '0');
  return digits === 0 ? text : `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** A float as an integer times a power of two. */
function fractionOf(value: number): [numerator: bigint, power: number] {
  if (value === 0) return [0n, 0];
  let power = Math.max(-1074, Math.floor(Math.log2(value)) - 52);
  let scaled = value;
  for (let left = power; left !== 0; ) {
    const step = Math.max(-1000, Math.min(1000, left));
    scaled *= 2 ** -step;
    left -= step;
  }
  while (!Number.isInteger(scaled)) {
    scaled *= 2;
    power -= 1;
  }
  return [BigInt(scaled), power];
}

function roundedShift(value: bigint, bits: bigint): bigint {
  const quotient = value >> bits;
  const rest = value - (quotient << bits);
  const half = 1n << (bits - 1n);
  return rest > half || (rest === half && quotient % 2n === 1n) ? quotient + 1n : quotient;
}

/** d.ddde±x with `digits` digits after the point. */
function scientific(value: number, digits: number): string {
  if (value === 0) return `${fixed(0, digits)}e+0`;
  let power = Math.floor(Math.log10(value));
  for (;;) {
    const text = scaledDigits(value, digits - power);
    if (text.length === digits + 1)
      return `${text[0]}${digits > 0 ? `.${text.slice(1)}` : ''}e${power < 0 ? '' : '+'}${power}`;
    power += text.length > digits + 1 ? 1 : -1; // the logarithm or the rounding was off by one
  }
}

/** The digits of value * 10^shift, rounded half to even. */
function scaledDigits(value: number, shift: number): string {
  const [numerator, power] = fractionOf(value);
  let [top, bottom] = shift >= 0 ? [numerator * 10n ** BigInt(shift), 1n] : [numerator, 10n ** BigInt(-shift)];
  if (power >= 0) top <<= BigInt(power);
  else bottom <<= BigInt(-power);
  const quotient = top / bottom;
  const twice = (top % bottom) * 2n;
  return String(twice > bottom || (twice === bottom && quotient % 2n === 1n) ? quotient + 1n : quotient);
}

function exponential(value: number, digits: number, isAlternate: boolean): string {
  const [mantissa, exponent] = scientific(value, digits).split('e');
  const point = isAlternate && !mantissa.includes('.') ? '.' : '';
  return `${mantissa}${point}e${exponent[0] === '-' ? '-' : '+'}${exponent.replace(/^[+-]/, '').padStart(2, '0')}`;
}

/** round(value, digits) for a float: the nearest decimal to its exact value, ties to even. */
export function roundFloat(value: number, digits: number): number {
  if (!Number.isFinite(value) || digits > 350) return value;
  const size = Math.abs(value);
  if (digits < -350) return value < 0 || Object.is(value, -0) ? -0 : 0;
  const rounded = digits >= 0 ? Number(fixed(size, digits)) : Number(`${scaledDigits(size || 0, digits)}e${-digits}`);
  return value < 0 || Object.is(value, -0) ? -rounded : rounded;
}

/** Groups the digits before the decimal point. */
export function group(digits: string, separator: string, size: number): string {
  const match = /^\d+(?=e[+-])|^[\da-zA-Z]+/.exec(digits);
  const whole = match?.[0] ?? '';
  const groups: string[] = [];
  for (let end = whole.length; end > 0; end -= size) groups.unshift(whole.slice(Math.max(0, end - size), end));
  return groups.join(separator) + digits.slice(whole.length);
}
