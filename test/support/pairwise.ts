// Combinations of the values of several factors: all of them, or a few in which each pair of values still occurs.

/** The values of each factor, by its name. */
export type Factors = Readonly<Record<string, readonly unknown[]>>;
/** One value of each factor. */
export type Choice<F extends Factors> = { readonly [Name in keyof F]: F[Name][number] };

/** Every combination that is allowed, the last factor's values changing fastest. */
export function product<F extends Factors>(
  factors: F,
  isAllowed: (choice: Choice<F>) => boolean = () => true,
): Choice<F>[] {
  let choices: Record<string, unknown>[] = [{}];
  for (const [name, values] of Object.entries(factors)) {
    choices = choices.flatMap((choice) => values.map((value) => ({ ...choice, [name]: value })));
  }
  return (choices as Choice<F>[]).filter(isAllowed);
}

/**
 * Allowed combinations in which each pair of values of two factors occurs that occurs in any allowed combination. Each is the one that adds
 * the most pairs to those before it. The same factors give the same combinations.
 */
export function pairwise<F extends Factors>(factors: F, isAllowed?: (choice: Choice<F>) => boolean): Choice<F>[] {
  const all = product(factors, isAllowed).map((choice) => ({ choice, pairs: pairsOf(factors, choice) }));
  const missing = new Set(all.flatMap(({ pairs }) => pairs));
  const found: Choice<F>[] = [];
  // By the number of missing pairs when they were last counted, which only falls.
  const byCount: (typeof all)[] = [];
  const put = (one: (typeof all)[number]): number => {
    const count = one.pairs.filter((pair) => missing.has(pair)).length;
    byCount[count] ??= [];
    byCount[count].push(one);
    return count;
  };
  for (const one of all.reverse()) put(one);
  while (missing.size > 0) {
    const most = byCount.pop() ?? [];
    const last = byCount.length;
    for (let one = most.pop(); one; one = most.pop()) {
      const missed = one.pairs.filter((pair) => missing.has(pair));
      if (missed.length < last) {
        put(one);
        continue;
      }
      found.push(one.choice);
      for (const pair of missed) missing.delete(pair);
    }
  }
  return found;
}

/** Each pair of two factors' values in a combination, as text. */
function pairsOf<F extends Factors>(factors: F, choice: Choice<F>): string[] {
  const places = Object.entries(factors).map(([name, values]) => `${name} ${values.indexOf(choice[name])}`);
  return places.flatMap((place, i) => places.slice(i + 1).map((other) => `${place}, ${other}`));
}
