// Estimated seconds of a step against those that were measured.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { decoderConfig, type StateBits, type StepPolicy, simulateStep } from '../../lib/index.ts';
import { presets } from '../../lib/models/presets.ts';
import { stepOperations } from '../../lib/step/operations.ts';
import { gpuRates, secondsByGpu, stepSeconds, stepTraffic, type TimedStep } from '../../lib/step/rates.ts';
import { tinyLlama } from '../support/runs.ts';

const config = decoderConfig(presets['Llama-3-8B']!);
const like = { kind: 'cuda', attention: 'cudnn' } as const;
const policy: StepPolicy = { mlpChunkSize: 8192, lossChunkSize: 8192, mlpSave: 'input', recompute: 'attention' };
const step = { B: 1, T: 8192, dtype: 'bfloat16', policy, masterWeights: false, like } as const;

interface Measured {
  name: string;
  milliseconds: number;
  peakBytes: number;
}
interface Case {
  case: string;
  sizes: { N: number; stateBits?: StateBits; gradientDtype?: 'bfloat16'; inBackward?: boolean };
  results: Measured[];
}

/** Steps of Llama-3-8B in a file of benchmarks/results. */
function measuredIn(file: string): { of: Case['sizes']; measured: Measured }[] {
  const { cases } = JSON.parse(readFileSync(`benchmarks/results/${file}`, 'utf8')) as { cases: Case[] };
  const ours = cases.filter((each) => each.case === 'llama3');
  return ours.flatMap(({ sizes, results }) => results.map((measured) => ({ of: sizes, measured })));
}

describe('stepSeconds', () => {
  for (const [file, gpu, count] of [
    ['h100_2026-11-28_in_backward.json', 'H100', 6],
    ['h100_2026-11-28.json', 'H100', 3],
    ['h200_2026-11-26.json', 'H200', 5],
  ] as const) {
    it(`is within 15 % of what was measured: ${file}`, () => {
      const all = measuredIn(file);
      assert.equal(all.length, count);
      for (const { of, measured } of all) {
        const { N: T, stateBits, gradientDtype } = of;
        const recompute = /recompute: '(\w+)'/.exec(measured.name)![1] as StepPolicy['recompute'];
        const ran: StepPolicy = { ...policy, recompute, ...(recompute === 'segments' && { slots: 16 }) };
        const seconds = stepSeconds(config, { ...step, T, stateBits, gradientDtype, policy: ran }, gpuRates[gpu])!;
        const ratio = (1000 * seconds) / measured.milliseconds;
        assert.ok(ratio > 0.85 && ratio < 1.15, `${measured.name}: ${seconds} s, ${ratio} of the measured`);
        if (!recompute.startsWith('segments')) continue;
        const whole = { config, B: 1, T, dtype: 'bfloat16', masterWeights: false, stateBits, gradientDtype } as const;
        const { reservedBytes } = simulateStep({ ...whole, inBackward: of.inBackward, policy: ran, like });
        assert.equal(reservedBytes, measured.peakBytes, 'it ran in 16 slots');
      }
    });
  }

  it('adds products, attention and bytes, each over its rate', () => {
    const { forward, total, attention } = stepOperations(config, step);
    const rates = { products: 5e14, attention: { 128: 3e14 }, memory: 2e12, hostLink: 1e12 };
    const expected = (total - attention) / 5e14 + attention / 3e14 + stepTraffic(config, step) / 2e12;
    assert.equal(stepSeconds(config, step, rates), expected);
    const offloads = { ...step, policy: { ...policy, offloadedInputs: 20 } };
    assert.equal(stepSeconds(config, offloads, rates), expected, 'copies are hidden');
    const copied = (20 * 8192 * 4096 * 2) / 1e9; // 1.3 s one way, longer than the forward and than the backward
    const both = stepSeconds(config, offloads, { ...rates, hostLink: 1e9 })!;
    assert.ok(Math.abs(both / (2 * copied) - 1) < 1e-12, `${both}`);
    const share = forward / total;
    const one = stepSeconds(config, offloads, { ...rates, hostLink: (copied * 1e9) / (0.5 * expected) })!;
    assert.ok(share < 0.5 && Math.abs(one / (expected * (1.5 - share)) - 1) < 1e-12, `${one}`);
  });

  it('counts bytes of activations for each token, and of the optimizer once', () => {
    const [C, F, V] = [4096, 14336, 128256];
    const plain = { ...step, policy: { ...policy, mlpSave: 'gateUp', recompute: 'none' } } as const;
    const [one, two] = [1, 2].map((B) => stepTraffic(config, { ...plain, B })) as [number, number];
    const rope = 4 * (32 + 8) * 128;
    assert.equal(two - one, 2 * 8192 * (32 * (22 * C + rope + 9 * F) + 2 * V));
    const weights = 8_030_261_248 - 65 * C;
    assert.equal(2 * one - two, weights * (2 * 4 + 16 + 4));
    const of = (more: Partial<TimedStep>) => stepTraffic(config, { ...plain, ...more });
    assert.equal(of({ stateBits: 8 }), one - 12 * weights);
    assert.equal(of({ gradientDtype: 'bfloat16' }), one - 4 * weights);
    assert.equal(of({ masterWeights: true }), one + 8 * weights);
    assert.equal(of({ lora: { rank: 8 } }), two - one);
    assert.ok(stepTraffic(config, step) > one, 'what is computed again');
  });

  it('is not known for what was not measured', () => {
    const known = (more: object, of = config) => Object.keys(secondsByGpu(of, { ...step, ...more }));
    assert.deepEqual(known({}), ['H100', 'H200']);
    assert.deepEqual(known({ dtype: 'float32' }), []);
    assert.deepEqual(known({ isPacked: true }), []);
    assert.deepEqual(known({ like: { kind: 'cuda', attention: 'builtin' } }), []);
    assert.deepEqual(known({ like: { kind: 'cpu', threads: 2 } }), []);
    assert.deepEqual(known({}, decoderConfig(tinyLlama)), [], 'heads of 8');
    assert.deepEqual(known({ T: 8191 }), []);
    assert.deepEqual(known({}, decoderConfig(presets['Gemma-2-9B']!)), [], 'soft-caps');
    const windows = decoderConfig({ ...presets['Mistral-7B']!, sliding_window: 4096 });
    assert.deepEqual(known({}, windows), []);
    assert.deepEqual(known({ T: 4096 }, windows), ['H100', 'H200'], 'all within the window');
  });
});
