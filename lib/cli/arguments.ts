// Numbers on the command line.
import { InvalidArgumentError } from 'commander';

interface Range {
  min?: number;
  max?: number;
  isInteger?: boolean;
}

/** Reads a number within bounds; another ends the program with a message that names the option. */
export function numberFrom({ min = -Infinity, max = Infinity, isInteger = false }: Range): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isFinite(value) && value >= min && value <= max && (!isInteger || Number.isSafeInteger(value)))
      return value;
    const bounds = [min > -Infinity && `from ${min}`, max < Infinity && `to ${max}`].filter(Boolean).join(' ');
    throw new InvalidArgumentError(`It must be ${isInteger ? 'an integer' : 'a number'} ${bounds}.`);
  };
}
