import assert from 'node:assert/strict';
import { type Factors, pairwise, product } from './pairwise.ts';

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Pairs of values of two factors that occur in combinations. */
function pairsIn(choices: readonly Readonly<Record<string, unknown>>[]): Set<string> {
  const pairs = new Set<string>();
  for (const choice of choices) {
    const entries = Object.entries(choice).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
    for (const a of entries) for (const b of entries) if (a < b) pairs.add(`${a} ${b}`);
  }
  return pairs;
}

describe('pairwise', () => {
  const cases: Factors[] = [
    { a: range(2), b: range(2), c: range(2) },
    { a: range(1), b: [false, true] },
    { a: range(8), b: [null, { x: 1 }], c: range(3), d: range(4), e: range(3) },
    Object.fromEntries(range(9).map((i) => [`f${i}`, range(3)])),
  ];
  for (const factors of cases) {
    const sizes = Object.values(factors).map((values) => values.length);
    it(`has each pair, in few combinations: ${sizes.join(' × ')}`, () => {
      const all = product(factors);
      assert.equal(
        all.length,
        sizes.reduce((count, size) => count * size, 1),
      );
      const found = pairwise(factors);
      assert.deepEqual(pairsIn(found), pairsIn(all));
      const [most, second] = [...sizes].sort((a, b) => b - a);
      assert.ok(found.length >= most! * second! && found.length <= 2 * most! * second!, `${found.length}`);
      assert.equal(new Set(found.map((each) => JSON.stringify(each))).size, found.length);
      assert.deepEqual(pairwise(factors), found);
    });
  }

  it('has allowed combinations alone, and each pair that occurs in one', () => {
    const factors = { a: range(3), b: range(3), c: range(3), d: range(2) };
    const isAllowed = ({ a, b, c }: { a: number; b: number; c: number }) => !(a === 1 && b === 2) && c !== 0;
    const found = pairwise(factors, isAllowed);
    assert.ok(found.every(isAllowed));
    assert.deepEqual(pairsIn(found), pairsIn(product(factors).filter(isAllowed)));
    assert.deepEqual(
      pairwise(factors, () => false),
      [],
    );
  });
});
