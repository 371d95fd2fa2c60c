// Objects of tokenizer.json, read strictly: a field that nobody knows may change ids.

export type Fields = Record<string, unknown>;

/** @param where what the object is, for messages */
export function fieldsOf(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${where} must be an object`);
  return value as Fields;
}

/** Refuses a field that is not among `known`, except where it is null, false or empty. */
export function refuseOthers(fields: Fields, where: string, known: readonly string[]): void {
  for (const [name, value] of Object.entries(fields)) {
    if (known.includes(name) || value === null || value === false || value === '') continue;
    throw new Error(`${where}: field ${JSON.stringify(name)} is not known, so ids could differ`);
  }
}

export function stringOf(fields: Fields, name: string, where: string, fallback?: string): string {
  const value = fields[name] ?? fallback;
  if (typeof value !== 'string') throw new Error(`${where}: ${name} must be a string, got ${JSON.stringify(value)}`);
  return value;
}

export function booleanOf(fields: Fields, name: string, where: string, fallback?: boolean): boolean {
  const value = fields[name] ?? fallback;
  if (typeof value !== 'boolean')
    throw new Error(`${where}: ${name} must be true or false, got ${JSON.stringify(value)}`);
  return value;
}

export function listOf(fields: Fields, name: string, where: string): unknown[] {
  const value = fields[name];
  if (!Array.isArray(value)) throw new Error(`${where}: ${name} must be a list`);
  return value;
}
