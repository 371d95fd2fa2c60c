// Scopes own tensors. When a scope ends, it disposes the tensors made inside that were neither returned nor kept.
import { AsyncLocalStorage } from 'node:async_hooks';

/** What a scope can own. */
export interface Owned {
  /** The scope that will dispose it; null if none will. */
  scope: Set<Owned> | null;
  dispose(): void;
}

const scopes = new AsyncLocalStorage<Set<Owned>>();

/** Hands an object to the innermost scope, if there is one. */
export function own(object: Owned): void {
  object.scope = scopes.getStore() ?? null;
  object.scope?.add(object);
}

/** Removes an object from its scope; the caller now owns it. */
export function disown(object: Owned): void {
  object.scope?.delete(object);
  object.scope = null;
}

/**
 * Runs `fn` and disposes every tensor made inside, except those in its result (a tensor, or tensors in arrays and plain objects);
 * the enclosing scope owns those. `fn` may be async.
 */
export function tidy<T>(fn: () => T): T {
  const scope = new Set<Owned>();
  let result: T;
  try {
    result = scopes.run(scope, fn);
  } catch (error) {
    close(scope);
    throw error;
  }
  if (result instanceof Promise) {
    const settled = result.then(
      (value) => {
        release(scope, value);
        return value;
      },
      (error) => {
        close(scope);
        throw error;
      },
    );
    return settled as T;
  }
  release(scope, result);
  return result;
}

function release(scope: Set<Owned>, result: unknown): void {
  for (const object of tensorsIn(result)) if (scope.delete(object)) own(object);
  close(scope);
}

function close(scope: Set<Owned>): void {
  for (const object of scope) object.dispose();
  scope.clear();
}

function* tensorsIn(value: unknown): Generator<Owned> {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
  if ('dispose' in value && typeof value.dispose === 'function') yield value as Owned;
  else if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) {
    for (const part of Object.values(value)) yield* tensorsIn(part);
  }
}
