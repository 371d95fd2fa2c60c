// Options that had other names, in configurations and checkpoints of earlier versions.

/** The names now, by those of before. */
export const RENAMED_OPTIONS = { products: 'matmul', tuneProducts: 'tuneMatmul' } as const;
/** A value of `attention` and `matmul`, and its name before. */
export const BUILTIN = 'builtin';
const BUILTIN_BEFORE = 'own';

export function isRenamed(key: string): key is keyof typeof RENAMED_OPTIONS {
  return Object.hasOwn(RENAMED_OPTIONS, key);
}

/** The error of an option whose value is named otherwise now; undefined: the value was never known. */
export function renamedValue({ input }: { input?: unknown }): string | undefined {
  return input === BUILTIN_BEFORE ? `'${BUILTIN_BEFORE}' is named '${BUILTIN}' now` : undefined;
}

/** What a checkpoint has stored, a configuration or the target of a device, with the names of now. */
export function withNewNames<T extends object>(stored: T): T {
  const entries = Object.entries(stored).map(([key, value]) => {
    const name = isRenamed(key) ? RENAMED_OPTIONS[key] : key;
    return [name, (name === 'attention' || name === 'matmul') && value === BUILTIN_BEFORE ? BUILTIN : value];
  });
  return Object.fromEntries(entries) as T;
}
