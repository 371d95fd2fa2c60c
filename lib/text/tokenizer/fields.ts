// Reads objects of tokenizer.json strictly: an unknown field may change ids.

export type Fields = Record<string, unknown>;

/** @param where the object's place, for messages */
export function fieldsOf(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${where} must be an object`);
  return value as Fields;
}

/** Throws if a field is not among `known`, unless it is null, false or empty. */
export function refuseOthers(fields: Fields, where: string, known: readonly string[]): void {
  for (const [name, value] of Object.entries(fields)) {
    if (known.includes(name) || value === null || value === false || value === '') continue;
    throw new Error(`${where}: field ${JSON.stringify(name)} is not known and may change ids`);
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
