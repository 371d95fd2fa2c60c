// Segments of layers: their sizes, that each gives the gradients of what is saved, bit for bit, and how often their layers run.
import assert from 'node:assert/strict';
import {
  addLora,
  Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  type HuggingFaceConfig,
  nextTokenLoss,
  openDevice,
  type StepPolicy,
  Tape,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { fewestSlots, segmentSizes, segmentsOf } from '../../lib/models/segments.ts';
import { toBfloat16 } from '../../lib/runtime/dtype.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { integers, normals } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

/** Most inputs that live at once while segments of these sizes are worked on, last to first. */
function mostInputs(sizes: readonly number[]): number {
  return Math.max(...sizes.map((size, i) => i + size));
}

describe('segmentSizes', () => {
  it('covers all layers, in as many segments as there are slots, with at most that many inputs at once', () => {
    for (let L = 1; L <= 100; L++) {
      for (let S = fewestSlots(L); S <= L; S++) {
        const sizes = segmentSizes(L, S);
        assert.equal(sizes.length, S);
        assert.equal(
          sizes.reduce((a, b) => a + b),
          L,
        );
        assert.ok(sizes.every((size) => size >= 1));
        assert.ok(mostInputs(sizes) <= S, `${L} layers, ${S} slots: ${sizes}`);
      }
    }
  });

  it('with what layers free, serves more', () => {
    for (const freed of [0.5, 1, 2]) {
      for (let L = 1; L <= 100; L++) {
        for (let S = fewestSlots(L, { freed }); S <= L; S++) {
          const sizes = segmentSizes(L, S, { freed });
          let done = 0;
          for (let i = S - 1; i >= 0; i--) {
            assert.ok(sizes[i]! >= 1 && i + sizes[i]! <= S + freed * done, `${L} layers, ${S} slots: ${sizes}`);
            done += sizes[i]!;
          }
          assert.equal(done, L);
        }
      }
    }
    assert.equal(fewestSlots(57, { freed: 1 }), 5);
    assert.equal(fewestSlots(58, { freed: 1 }), 6);
  });

  it('where inner layers keep more than their input, serves fewer', () => {
    for (const inner of [1.5, 2, 3]) {
      for (let L = 1; L <= 100; L++) {
        for (let S = fewestSlots(L, { inner }); S <= L; S++) {
          const sizes = segmentSizes(L, S, { inner });
          assert.equal(
            sizes.reduce((a, b) => a + b),
            L,
          );
          const most = Math.max(...sizes.map((size, i) => i + 1 + inner * (size - 1)));
          assert.ok(sizes.every((size) => size >= 1) && most <= S, `${L} layers, ${S} slots: ${sizes}`);
        }
      }
    }
    assert.deepEqual(segmentSizes(36, 11, { inner: 2 }), [6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]);
    assert.equal(fewestSlots(37, { inner: 2 }), 12);
    const wide = decoderConfig({ ...tinyLlama, num_hidden_layers: 9, head_dim: 2 * tinyLlama.hidden_size });
    const keeping = { recompute: 'segments', slots: 8, keepAttention: true } as const; // outputs are 8 times as wide as inputs
    assert.throws(() => segmentsOf(wide, keeping), /9 layers need 9 to 9 slots, got 8/);
    for (const recompute of ['none', 'attention', 'attentionSegments', 'layer'] as const) {
      assert.throws(
        () => segmentsOf(wide, { recompute, keepAttention: true }),
        new RegExp(`keepAttention is for recompute 'segments', got '${recompute}'`),
      );
    }
  });

  it('needs 8 slots for 29 to 36 layers', () => {
    assert.deepEqual(
      [28, 29, 32, 36, 37].map((L) => fewestSlots(L)),
      [7, 8, 8, 8, 9],
    );
    assert.deepEqual(segmentSizes(36, 8), [8, 7, 6, 5, 4, 3, 2, 1]);
    assert.deepEqual(segmentSizes(4, 4), [1, 1, 1, 1]);
  });

  it('refuses slots that do not serve', () => {
    assert.throws(() => segmentSizes(32, 7), /32 layers need 8 to 32 slots, got 7/);
    assert.throws(() => segmentSizes(32, 33), /32 layers need 8 to 32 slots, got 33/);
    assert.throws(() => segmentSizes(32, 0), RangeError);
    assert.throws(() => segmentSizes(32, 8.5), RangeError);
  });
});

const [B, T, L] = [2, 14, 7]; // an input is a whole number of the arena's units
const base = { mlpChunkSize: 9, lossChunkSize: 11, mlpSave: 'input' } as const;
const saved: StepPolicy = { ...base, recompute: 'none' };
const recomputing: StepPolicy[] = [
  { ...base, recompute: 'attention' },
  { ...base, recompute: 'layer' },
  { ...base, recompute: 'attentionSegments' },
  { ...base, recompute: 'attentionSegments', slots: 4 },
  { ...base, recompute: 'segments' },
  { ...base, recompute: 'segments', slots: 5 },
  { ...base, recompute: 'segments', keepAttention: true },
  { ...base, recompute: 'segments', slots: 6, keepAttention: true },
];

interface Case {
  source?: HuggingFaceConfig;
  hasLora?: boolean;
  isPacked?: boolean;
  dtype?: Dtype;
}
const cases: Record<string, Case> = {
  'a tied head': { source: { tie_word_embeddings: true } },
  'bf16 and packed documents': { dtype: 'bfloat16', isPacked: true },
  'adapters with dropout': { hasLora: true },
  'adapters with dropout, bf16': { hasLora: true, dtype: 'bfloat16' },
  'Gemma-2': { source: { model_type: 'gemma2', head_dim: 8, sliding_window: 5, query_pre_attn_scalar: 8 } },
  'Gemma-3 and packed documents': {
    source: {
      model_type: 'gemma3_text',
      head_dim: 8,
      sliding_window: 5,
      sliding_window_pattern: 3,
      query_pre_attn_scalar: 8,
    },
    isPacked: true,
  },
};

/** A model, and a batch of B sequences, in one of which a document ends early. */
function made({ source, hasLora = false, isPacked = false, dtype = 'float32' }: Case, device: Device) {
  const config = decoderConfig({ ...tinyLlama, num_hidden_layers: L, initializer_range: 0.2, ...source });
  const model = new Decoder(config, { device, dtype }).initialize(1);
  if (hasLora) {
    addLora(model, { rank: 2, modules: LORA_MODULES, dropout: 0.3 });
    let seed = 7;
    for (const { b } of device.id === null ? [] : model.lora!.adapters.values()) {
      const values = Float32Array.from(normals(b.size, seed++, 0.1));
      b.write(dtype === 'bfloat16' ? toBfloat16(values) : values);
    }
  }
  const starts = Int32Array.from({ length: B * T }, (_, n) => (n >= 4 && n < T ? 4 : n < T ? 0 : T));
  const batch = {
    inputs: tensor(integers(B * T, 256, 1), { device }),
    targets: tensor(integers(B * T, 256, 2), { device }),
    T,
    documentStart: isPacked ? tensor(starts, { device }) : null,
  };
  return { model, batch };
}

/** The loss and the gradients of all parameters, by name. */
async function lossAndGradients(each: Case, policy: StepPolicy): Promise<Map<string, Float32Array>> {
  using device = openDevice('cpu');
  const found = new Map<string, Float32Array>();
  const { model, batch } = made(each, device);
  const tape = new Tape();
  const loss = tape.run(() => nextTokenLoss(model, batch, { policy, dropout: { seed: 3, step: 4 } }).loss);
  tape.backward(loss);
  found.set('loss', await loss.toFloat32());
  for (const parameter of model.trainableParameters()) found.set(parameter.name!, await parameter.grad!.toFloat32());
  for (const each of [model, loss, batch.inputs, batch.targets, batch.documentStart]) each?.dispose();
  assert.equal(device.memory().liveBytes, 0);
  return found;
}

describe('gradients are those of what is saved, bit for bit', () => {
  for (const [name, each] of Object.entries(cases)) {
    it(name, async () => {
      const expected = await lossAndGradients(each, saved);
      for (const policy of recomputing) {
        const found = await lossAndGradients(each, policy);
        assert.deepEqual([...found.keys()], [...expected.keys()]);
        for (const [key, values] of found) {
          assert.deepEqual(values, expected.get(key), `${JSON.stringify(policy)}: ${key}`);
        }
      }
    });
  }
});

it('attention kept inside segments, by groups of heads: gradients are those of layers by groups, bit for bit', async () => {
  for (const each of [{ isPacked: true }, { hasLora: true, dtype: 'bfloat16' }] satisfies Case[]) {
    const inGroups = { ...base, attentionHeadGroups: 2 };
    const expected = await lossAndGradients(each, { ...inGroups, recompute: 'layer' });
    const found = await lossAndGradients(each, { ...inGroups, recompute: 'segments', slots: 5, keepAttention: true });
    assert.deepEqual(found, expected);
  }
});

/** Calls of kernels during a forward and backward on `meta`, and bytes of activations at each backward of attention. */
function traced(policy: StepPolicy, names: readonly string[]) {
  using device = openDevice('meta');
  const calls: Record<string, number> = Object.fromEntries(names.map((name) => [name, 0]));
  const live: number[] = [];
  const all = kernels as unknown as Record<string, (...args: unknown[]) => void>;
  const real = names.map((name) => [name, all[name]!] as const);
  for (const [name, kernel] of real) {
    all[name] = (...args) => {
      calls[name]! += 1;
      if (name === 'attention_backward') live.push(device.memory().live.activation);
      kernel(...args);
    };
  }
  try {
    const { model, batch } = made({}, device);
    tidy(() => {
      const tape = new Tape();
      tape.backward(tape.run(() => nextTokenLoss(model, batch, { policy }).loss));
    });
    for (const each of [model, batch.inputs, batch.targets]) each.dispose();
  } finally {
    for (const [name, kernel] of real) all[name] = kernel;
  }
  return { calls, live };
}

describe('layers run no more often than they must', () => {
  const names = ['attention_forward', 'attention_backward', 'chunked_mlp_forward', 'chunked_mlp_backward'];
  const callsOf = (policy: Partial<StepPolicy>) => {
    const { calls } = traced({ ...saved, ...policy }, names);
    return names.map((name) => calls[name]);
  };

  it('once, twice, three times', () => {
    assert.deepEqual(callsOf({ recompute: 'none' }), [L, L, L, L]);
    assert.deepEqual(callsOf({ recompute: 'attention' }), [L, L, L, L]);
    assert.deepEqual(callsOf({ recompute: 'layer' }), [2 * L, L, L, L]);
    for (const slots of [3, 4, 5, 7]) {
      assert.deepEqual(callsOf({ recompute: 'attentionSegments', slots }), [L, L, 2 * L - slots, L], `${slots}`);
    }
    // all but each segment's last again; of these the MLP, which their own second runs end before
    for (const slots of [4, 5, 6, 7]) {
      assert.deepEqual(callsOf({ recompute: 'segments', slots }), [3 * L - slots, L, 2 * L - slots, L], `${slots}`);
    }
    for (const slots of [5, 6, 7]) {
      const keeping = { recompute: 'segments', slots, keepAttention: true } as const;
      assert.deepEqual(callsOf(keeping), [2 * L, L, 2 * L - slots, L], `${slots}`);
    }
  });

  it('keeping attention, take no more at once than their slots and the outputs of attention', () => {
    const input = B * T * tinyLlama.hidden_size * 4;
    // each layer's input and attention's output, at layer l, last first
    const both = traced({ ...saved, recompute: 'attentionSegments', slots: L }, names).live;
    for (const slots of [3, 4, 5]) {
      const { live } = traced({ ...saved, recompute: 'attentionSegments', slots }, names);
      const units = live.map((bytes, i) => 2 * (L - i) + (bytes - both[i]!) / input);
      assert.ok(Math.max(...units) <= L + slots, `${units}`);
      assert.equal(units[0], L + slots);
      assert.equal(units.at(-1), 2);
    }
  });

  it('with as many inputs at once as there are slots', () => {
    const input = B * T * tinyLlama.hidden_size * 4;
    const layer = traced({ ...saved, recompute: 'layer' }, names).live; // at layer l, last first, l + 1 inputs
    for (const slots of [4, 5, 6]) {
      const { live } = traced({ ...saved, recompute: 'segments', slots }, names);
      const inputs = live.map((bytes, i) => L - i + (bytes - layer[i]!) / input);
      assert.equal(Math.max(...inputs), slots, `${inputs}`);
      assert.equal(inputs.at(-1), 1);
    }
  });

  it('keeping attention inside segments, take no more at once than their slots, and logs of sums', () => {
    const input = B * T * tinyLlama.hidden_size * 4;
    const lse = B * T * tinyLlama.num_attention_heads! * 4;
    const layer = traced({ ...saved, recompute: 'layer' }, names).live;
    for (const slots of [5, 6]) {
      const { live } = traced({ ...saved, recompute: 'segments', slots, keepAttention: true }, names);
      const inputs = live.map((bytes, i) => L - i + (bytes - layer[i]!) / input);
      const most = Math.max(...inputs);
      assert.ok(most >= slots && most <= slots + (L * lse) / input, `${inputs}`);
      assert.equal(inputs.at(-1), 1);
    }
  });
});
