// Sampling against the distribution.
import assert from 'node:assert/strict';
import { sampleToken } from '../../lib/generate/sample.ts';
import { normals } from '../support/random.ts';

describe('sampling', () => {
  const logits = Float32Array.of(1, 3, 2, 0, 2.5);
  const draws = 20_000;
  const frequencies = (options: Parameters<typeof sampleToken>[1]) => {
    const counts = new Array<number>(logits.length).fill(0);
    for (let i = 0; i < draws; i++) counts[sampleToken(logits, options, (i + 0.5) / draws).id]! += 1;
    return counts.map((count) => count / draws);
  };
  const softmax = (values: number[], temperature = 1) => {
    const weights = values.map((value) => Math.exp(value / temperature));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  };

  it('draws in proportion to the probabilities, at every temperature', () => {
    for (const temperature of [0.5, 1, 2]) {
      const expected = softmax([...logits], temperature);
      for (const [i, share] of frequencies({ temperature }).entries()) {
        assert.ok(Math.abs(share - expected[i]!) < 1e-3, `${share}`);
      }
    }
  });

  it('leaves out all but the k likeliest, or those that add up to p', () => {
    const [, b, , , e] = softmax([-Infinity, 3, -Infinity, -Infinity, 2.5]);
    for (const options of [{ topK: 2 }, { topP: softmax([...logits])[1]! + 0.01 }]) {
      const found = frequencies(options);
      assert.deepEqual([found[0], found[2], found[3]], [0, 0, 0]);
      assert.ok(Math.abs(found[1]! - b!) < 1e-3 && Math.abs(found[4]! - e!) < 1e-3, `${found}`);
    }
    assert.equal(frequencies({ topP: 1e-9 })[1], 1);
    assert.equal(frequencies({ topK: 1 })[1], 1);
    assert.equal(frequencies({ temperature: 0 })[1], 1);
  });

  it('gives the log-probability among all tokens', () => {
    const expected = softmax([...logits], 0.7).map(Math.log);
    for (const uniform of [0, 0.3, 0.6, 0.99]) {
      const { id, logProbability } = sampleToken(logits, { temperature: 0.7, topK: 3 }, uniform);
      assert.ok(Math.abs(logProbability - expected[id]!) < 1e-6);
    }
  });

  it("leaves out what has less than a share of the likeliest one's probability", () => {
    const kept = softmax([-Infinity, 3, 2, -Infinity, 2.5]);
    const found = frequencies({ minP: Math.exp(-1.01) });
    for (const [i, share] of found.entries()) assert.ok(Math.abs(share - kept[i]!) < 1e-3, `${found}`);
    assert.equal(frequencies({ minP: 1 })[1], 1);
    // At temperature 2 the shares are exp(-1/2), exp(-1/4).
    assert.deepEqual(
      frequencies({ minP: Math.exp(-0.4), temperature: 2 }).map((share) => share > 0),
      [false, true, false, false, true],
    );
  });

  it('divides or multiplies the logits of tokens that are there already', () => {
    const signed = Float32Array.of(1, 3, 2, -1, -0.5);
    const seen = new Set([1, 3]);
    const greedy = (repetitionPenalty: number) =>
      sampleToken(signed, { temperature: 0, repetitionPenalty }, 0, seen).id;
    assert.deepEqual([1, 1.4, 1.6, 3.1].map(greedy), [1, 1, 2, 2]);
    const counts = new Array<number>(5).fill(0);
    for (let i = 0; i < draws; i++) {
      counts[sampleToken(signed, { repetitionPenalty: 2, temperature: 0.5 }, (i + 0.5) / draws, seen).id]! += 1;
    }
    const expected = softmax([1, 1.5, 2, -2, -0.5], 0.5);
    for (const [i, count] of counts.entries()) assert.ok(Math.abs(count / draws - expected[i]!) < 1e-3, `${counts}`);
    assert.deepEqual([...signed], [1, 3, 2, -1, -0.5], 'the logits are as they were');
  });

  it('takes the same tokens as sorting all of them would, equal ones by their number', () => {
    const many = Float32Array.from(normals(3000, 5), (value) => Math.round(value * 8) / 8);
    const order = [...many.keys()].sort((a, b) => many[b]! - many[a]! || a - b);
    for (const topK of [1, 7, 50, 2999]) {
      assert.equal(sampleToken(many, { topK }, 0).id, order[0]);
      assert.equal(sampleToken(many, { topK }, 1 - 1e-12).id, order[topK - 1]);
    }
    const probabilities = softmax(order.map((id) => many[id]!));
    for (const topP of [0.1, 0.5, 0.9]) {
      let count = 0;
      for (let sum = 0; sum < topP; count++) sum += probabilities[count]!;
      assert.equal(sampleToken(many, { topP }, 1 - 1e-12).id, order[count - 1]);
    }
  });
});
