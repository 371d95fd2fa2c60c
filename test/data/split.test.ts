// Parts of a data set to train and to validate on share nothing, and no conversation.
import assert from 'node:assert/strict';
import { split, splitDocuments } from '../../lib/data/split.ts';

const upTo = (length: number) => Array.from({ length }, (_, i) => i);
const ascending = (a: number, b: number) => a - b;

describe('a split', () => {
  it('has all numbers, each once, by the seed', () => {
    const { training, validation } = split(100, 0.15, 3);
    assert.equal(validation.length, 15);
    assert.deepEqual([...training, ...validation].sort(ascending), upTo(100));
    assert.deepEqual(split(100, 0.15, 3).validation, validation);
    assert.notDeepEqual(split(100, 0.15, 4).validation, validation);
    assert.deepEqual([split(2, 0.9, 0).training.length, split(2, 0.01, 0).validation.length], [1, 1]);
  });

  it('keeps the documents of a record together', () => {
    const records = Float64Array.of(0, 1, 4, 5, 9, 11);
    for (let seed = 0; seed < 30; seed++) {
      const { training, validation } = splitDocuments({ records, numDocuments: 12 }, 0.34, seed);
      assert.deepEqual([...training, ...validation].sort(ascending), upTo(12));
      const recordOf = (document: number) => records.findLastIndex((first) => first <= document);
      const [trained, held] = [training, validation].map((documents) => new Set(documents.map(recordOf)));
      assert.equal(held!.size, 2, 'of six records');
      assert.ok(
        [...held!].every((record) => !trained!.has(record)),
        `seed ${seed}`,
      );
      assert.deepEqual([[...training].sort(ascending), [...validation].sort(ascending)], [training, validation]);
    }
  });

  it('of records with a document each is that of their documents', () => {
    const records = Float64Array.from(upTo(50));
    assert.deepEqual(splitDocuments({ records, numDocuments: 50 }, 0.2, 7), split(50, 0.2, 7));
  });
});
