// The arena: best fit, statistics, limits, and what steps leave behind.
import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import {
  decoderConfig,
  empty,
  OutOfMemoryError,
  openDevice,
  planStep,
  type StepPolicy,
  simulateStep,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { presetConfig } from '../../lib/models/presets.ts';
import { defaultChunkSize, evenChunkSize, logitsWorkspace } from '../../lib/ops/workspace.ts';
import { Arena } from '../../lib/runtime/memory/arena.ts';
import { FreeList } from '../../lib/runtime/memory/free_list.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { openTestDevice } from '../support/devices.ts';

const nothing = { name: 'test', granularity: 4096, map() {}, fill() {}, check() {}, waitFor() {} };
const arena = (memoryLimit = Infinity) => new Arena(nothing, { memoryLimit, debug: false });

describe('arena', () => {
  it('never hands out overlapping memory, and is empty when all is given back', () => {
    const commands = fc.array(
      fc.record({ bytes: fc.integer({ min: 1, max: 20000 }), release: fc.boolean(), which: fc.nat() }),
      { maxLength: 200 },
    );
    fc.assert(
      fc.property(commands, (list) => {
        const subject = arena();
        const held: ReturnType<Arena['allocate']>[] = [];
        for (const { bytes, release, which } of list) {
          if (release && held.length > 0) subject.release(held.splice(which % held.length, 1)[0]!);
          else held.push(subject.allocate(bytes, 'other'));
          const sorted = [...held].sort((a, b) => a.offset - b.offset);
          for (let i = 1; i < sorted.length; i++)
            assert.ok(sorted[i - 1]!.offset + sorted[i - 1]!.size <= sorted[i]!.offset);
          assert.equal(
            subject.statistics().liveBytes,
            held.reduce((sum, { size }) => sum + size, 0),
          );
        }
        for (const block of held) subject.release(block);
        assert.equal(subject.statistics().liveBytes, 0);
        assert.equal(subject.allocate(1, 'other').offset, 0, 'holes were not joined');
      }),
    );
  });

  it('takes the smallest hole that fits', () => {
    const subject = arena();
    const [a, , b] = [4096, 512, 1024, 512].map((bytes) => subject.allocate(bytes, 'other'));
    subject.release(a!);
    subject.release(b!);
    assert.equal(subject.allocate(1000, 'other').offset, b!.offset);
    assert.equal(subject.allocate(1025, 'other').offset, a!.offset);
  });

  it('joins a hole at the end with what lies behind it', () => {
    const list = new FreeList();
    list.take(0, 1024);
    list.take(1024, 512);
    list.give(1024, 512);
    assert.equal(list.end, 1024);
    assert.equal(list.find(4096), 1024);
  });

  it('reports live, peak and reserved bytes by category', () => {
    const subject = arena();
    const weight = subject.allocate(1000, 'parameter');
    const scratch = subject.allocate(5000, 'workspace');
    subject.release(scratch);
    const { liveBytes, peakBytes, reservedBytes, live, peak } = subject.statistics();
    assert.deepEqual([liveBytes, peakBytes, reservedBytes], [1024, 1024 + 5120, 8192]);
    assert.deepEqual([live.parameter, live.workspace, peak.workspace], [1024, 0, 5120]);
    subject.resetPeak();
    assert.equal(subject.statistics().peakBytes, 1024);
    assert.equal(subject.statistics().reservedBytes, 4096);
    subject.release(weight);
  });

  it('refuses an allocation over the limit, names the memory in use, and goes on', () => {
    const subject = arena(8192);
    const held = subject.allocate(6000, 'activation');
    assert.throws(
      () => subject.allocate(4096, 'workspace'),
      (error: OutOfMemoryError) => {
        assert.ok(error instanceof OutOfMemoryError);
        assert.match(error.message, /4\.00 KiB more do not fit into 8\.00 KiB.*activation 6\.00 KiB/);
        assert.equal(error.breakdown.activation, 6144);
        return true;
      },
    );
    assert.equal(subject.allocate(2048, 'workspace').offset, 6144);
    subject.release(held);
  });

  for (const [category, helps, doesNot] of [
    [
      'optimizer',
      /LoRA, stateBits: 8, masterWeights: false or a larger memoryLimit would help/,
      /chunk|recompute|sequence/,
    ],
    [
      'gradient',
      /LoRA, gradientDtype: 'bfloat16', optimizer.inBackward or a larger memoryLimit would help/,
      /chunk|recompute|sequence/,
    ],
    ['parameter', /dtype: 'bfloat16', a smaller model or a larger memoryLimit would help/, /chunk|recompute|sequence/],
    ['activation', /recompute: 'layer', a shorter sequence, a smaller batch or a larger/, /LoRA|master|chunk/],
    [
      'workspace',
      /smaller chunks \(chunkSize, chunkSizes\) or a larger memoryLimit would help/,
      /LoRA|master|recompute/,
    ],
  ] as const) {
    it(`advises what makes the largest category smaller: ${category}`, () => {
      const subject = arena(100 * 4096);
      subject.allocate(4 * 4096, category === 'parameter' ? 'other' : 'parameter');
      subject.allocate(60 * 4096, category);
      assert.throws(
        () => subject.allocate(60 * 4096, category),
        ({ message }: Error) =>
          helps.test(message) && !doesNot.test(message) && message.includes(`Wanted: ${category}`),
      );
    });
  }

  it('records a timeline', () => {
    const subject = arena();
    subject.startTimeline();
    subject.allocate(1, 'other');
    const content = { dtype: 'float32', shapes: [[2, 64]] };
    subject.release(subject.allocate(512, 'gradient', content));
    assert.deepEqual(subject.stopTimeline(), [
      { bytes: 512, category: 'other', liveBytes: 512, offset: 0, content: null },
      { bytes: 512, category: 'gradient', liveBytes: 1024, offset: 512, content },
      { bytes: -512, category: 'gradient', liveBytes: 512, offset: 512, content: null },
    ]);
  });
});

describe('debug arena', () => {
  it('fills new memory with NaN', async () => {
    using device = openTestDevice({ debug: true });
    const garbage = empty([3], { device });
    assert.deepEqual([...(await garbage.data())], [NaN, NaN, NaN]);
  });

  it('notices a write before or after a tensor', async () => {
    for (const [begin, end] of [
      [-1, 4],
      [0, 129],
    ] as const) {
      using device = openTestDevice({ debug: true });
      const subject = empty([128], { device });
      // A view beyond the tensor, as a wrong kernel would write it.
      const view = Float64Array.from(subject.view);
      view[0]! += begin * 4;
      view[3] = view[4] = end - begin;
      kernels.fill({ device, view } as never, 1);
      subject.dispose();
      await assert.rejects(device.synchronize(), /red zone of a other block.*was overwritten/);
    }
  });
});

describe('device memory', () => {
  it('throws OutOfMemoryError, and the next smaller allocation succeeds', async () => {
    using device = openTestDevice({ memoryLimit: 2 ** 24 });
    assert.throws(() => zeros([2 ** 23], { device }), OutOfMemoryError);
    const small = zeros([1000], { device });
    assert.equal((await small.data())[999], 0);
  });

  it('enqueues nothing on a closed device', () => {
    const device = openTestDevice();
    const subject = tensor([1, 2], { device });
    device.close();
    assert.throws(() => subject.rows(0, 1).view, /the device was closed/);
  });

  it('frees what a scope made, also when it fails', () => {
    using device = openTestDevice();
    assert.throws(() =>
      tidy(() => {
        zeros([100], { device });
        throw new Error('on purpose');
      }),
    );
    assert.equal(device.memory().liveBytes, 0);
  });
});

describe('chunks', () => {
  it('are near equal, at least about C rows and at most that, in multiples of 1024 rows where there are as many', () => {
    const sizes: [N: number, C: number, chunkSize: number][] = [
      [65536, 4096, 4096],
      [65536, 3584, 4096],
      [65536, 2304, 3072],
      [65536, 5120, 5120],
      [65536, 256, 1024],
      [8193, 8192, 5120], // 5120 and 3073 rows, not 8192 and 1
      [9000, 4096, 3072],
      [4096, 4096, 4096],
      [1000, 4096, 1000],
      [1500, 64, 1024],
      [0, 64, 1],
    ];
    for (const [N, C, chunkSize] of sizes) assert.equal(defaultChunkSize(N, C), chunkSize, `N ${N}, C ${C}`);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 21 }), fc.integer({ min: 1, max: 64 }), (N, most) => {
        const size = evenChunkSize(N, most * 1024);
        assert.ok(size <= most * 1024);
        assert.ok(size % 1024 === 0 || size === N);
        assert.equal(Math.ceil(N / size) <= Math.ceil(N / (most * 1024)), true, 'more chunks than are needed');
      }),
    );
  });

  it('of logits begin every row at a multiple of 128 bytes on CUDA, and have no gaps on the CPU', () => {
    const bytes = (kind: 'cpu' | 'cuda', V: number) => {
      const device = openDevice('meta', { like: kind === 'cpu' ? { kind, threads: 1 } : { kind } });
      return tidy(() => logitsWorkspace(device, 1024, V, 'bfloat16').sizeBytes / 2 / 1024);
    };
    assert.deepEqual([bytes('cuda', 50257), bytes('cuda', 128256)], [50304, 128256]);
    assert.equal(bytes('cpu', 50257), 50257);
  });
});

describe('simulated steps', () => {
  const config = decoderConfig(presetConfig('Llama-3-8B'));
  const T = 65536;
  const whole: StepPolicy = { mlpChunkSize: T, lossChunkSize: T, mlpSave: 'input', recompute: 'layer' };
  const chunked: StepPolicy = { ...whole, mlpChunkSize: 4096, lossChunkSize: 4096 };
  const peak = (policy: StepPolicy) =>
    simulateStep({ config, B: 1, T, dtype: 'bfloat16', policy, like: { kind: 'cuda' } });

  it('give the weights, f32 gradients and optimizer state of Llama-3-8B to the byte', () => {
    const { live, peak: atPeak } = peak(chunked);
    const parameters = 8_030_261_248;
    assert.equal(live.parameter, 2 * parameters + 512);
    assert.equal(live.optimizer, 12 * parameters + 512); // and the number of updates
    assert.ok(atPeak.workspace < 2 ** 30);
  });

  it('with bf16 gradients need half the bytes for them, and f32 memory for the sums of one layer', () => {
    const T = 8192;
    const policy: StepPolicy = { mlpChunkSize: 4096, lossChunkSize: 4096, mlpSave: 'input', recompute: 'attention' };
    const step = { config, B: 1, T, dtype: 'bfloat16', policy, like: { kind: 'cuda' } } as const;
    const [wide, narrow] = (['float32', 'bfloat16'] as const).map((gradientDtype) =>
      simulateStep({ ...step, gradientDtype }),
    );
    const gradients = 2 * 8_030_261_248;
    const saved = wide!.peakBytes - narrow!.peakBytes;
    assert.ok(saved > 0.99 * gradients && saved <= gradients, `${saved} bytes less`);
    assert.equal(narrow!.live.optimizer, wide!.live.optimizer);
    // The peak is in an MLP: gate, up and h of a chunk, memory for a product, and the sums of three weight gradients.
    const [C, F] = [4096, 14336];
    const sums = 4 * 3 * C * F;
    const workspace = (M: number) => 2 * 3 * M * F + 32 * 2 ** 20;
    assert.equal(narrow!.peak.workspace, workspace(4096) + sums);
    const whole = { ...policy, mlpChunkSize: T, lossChunkSize: T };
    const inOneChunk = simulateStep({ ...step, policy: whole, gradientDtype: 'bfloat16' });
    assert.equal(inOneChunk.peak.workspace, workspace(T));
  });

  it('that fit under no policy leak no tensor', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const lost: string[] = [];
    const onWarning = ({ message }: Error) => lost.push(message);
    process.on('warning', onWarning);
    const odd = { model_type: 'llama', hidden_size: 72, intermediate_size: 7, num_hidden_layers: 2, vocab_size: 9 };
    const config = decoderConfig({ ...odd, num_attention_heads: 2 });
    for (const memoryLimit of [2 ** 16, 2 ** 18, 2 ** 20]) {
      assert.throws(() => planStep(config, { B: 1, T: 65536, memoryLimit }), OutOfMemoryError);
    }
    for (let i = 0; i < 5; i++) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    process.off('warning', onWarning);
    assert.deepEqual(
      lost.filter((message) => /\b72\b/.test(message)), // others are of other tests
      [],
    );
  });

  it('that fit under no policy say what they take and what helps', () => {
    const small = decoderConfig({
      model_type: 'llama',
      hidden_size: 64,
      intermediate_size: 160,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      vocab_size: 256,
    });
    const like = { kind: 'cpu', threads: 2 } as const; // whose workspaces are small
    const plan = (options: object) => {
      try {
        planStep(small, { B: 1, T: 512, dtype: 'bfloat16', like, memoryLimit: 2 ** 20, ...options });
        return 'fits';
      } catch (error) {
        assert.ok(error instanceof OutOfMemoryError, String(error));
        return error.message;
      }
    };
    const state = /weights, gradients and optimizer state alone take \S+ MiB\. /;
    const all = plan({});
    assert.match(all, state);
    assert.match(
      all,
      /LoRA, stateBits: 8, masterWeights: false, gradientDtype: 'bfloat16', optimizer.inBackward or a larger memoryLimit would help/,
    );
    assert.doesNotMatch(all, /chunks|recompute:|shorter/);
    assert.match(plan({ dtype: 'float32' }), /LoRA, dtype: 'bfloat16', stateBits: 8, optimizer.inBackward or a larger/);
    const least = { masterWeights: false, stateBits: 8, gradientDtype: 'bfloat16' } as const;
    assert.match(plan(least), /\. LoRA, optimizer.inBackward or a larger memoryLimit would help/);
    assert.match(plan({ ...least, inBackward: true }), /\. LoRA or a larger memoryLimit would help/);
    const long = plan({ T: 65536, B: 2, lora: { rank: 1 }, memoryLimit: 2 ** 24 });
    assert.match(
      long,
      /a step takes at least \S+ \w+, of which weights, gradients and optimizer state are \S+ \w+\. a shorter sequence \(T \d+ fits\), a smaller batch, a larger hostMemoryLimit or a/,
    );
    assert.match(
      plan({ T: 65536, memoryLimit: 2 ** 24, fixed: { recompute: 'none' } }),
      /leaving recompute to the planner/,
    );
    // What it says that a step takes is what it takes.
    const needed = Number(/at least (\S+) MiB/.exec(long)![1]) * 2 ** 20;
    const fits = plan({ T: 65536, B: 2, lora: { rank: 1 }, memoryLimit: needed * 1.001 });
    assert.equal(fits, 'fits');
    const tooSmall = plan({ T: 65536, B: 2, lora: { rank: 1 }, memoryLimit: needed * 0.99 });
    assert.match(tooSmall, /at least/);
  });

  it('refuse bf16 gradients of f32 parameters and of several micro-batches', () => {
    const policy: StepPolicy = { mlpChunkSize: 8, lossChunkSize: 8, mlpSave: 'input', recompute: 'none' };
    const step = { config, B: 1, T: 8, gradientDtype: 'bfloat16' } as const;
    assert.throws(() => simulateStep({ ...step, policy }), {
      name: 'RangeError',
      message: "Decoder: gradientDtype 'bfloat16' needs bfloat16 parameters, but these are float32",
    });
    const several = { ...step, dtype: 'bfloat16', accumulationSteps: 3 } as const;
    const refusal = {
      name: 'RangeError',
      message: /^TrainStep: gradientDtype 'bfloat16' is for one micro-batch a step, got 3/,
    };
    assert.throws(() => simulateStep({ ...several, policy }), refusal);
    assert.throws(() => planStep(config, { ...several, memoryLimit: 2 ** 40 }), refusal);
  });

  it('take over 4 GiB less workspace with chunks than without', () => {
    const difference = peak(whole).peak.workspace - peak(chunked).peak.workspace;
    assert.ok(difference > 4 * 2 ** 30, `only ${difference} bytes`);
  });
});
