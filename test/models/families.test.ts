// Every family's decoder: gradients against central differences in f64, memory against `meta`.
import assert from 'node:assert/strict';
import {
  AdamW,
  type Batch,
  Decoder,
  type Device,
  type DeviceName,
  decoderConfig,
  nextTokenLoss,
  noGrad,
  openDevice,
  type StepPolicy,
  simulateStep,
  Tape,
  type Tensor,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { itOnCpu, openTestDevice, testDevice, valuesOf } from '../support/devices.ts';
import { sources, tiny } from '../support/families.ts';
import { integers, normals } from '../support/random.ts';

const T = 11;
const policy: StepPolicy = { mlpChunkSize: 7, lossChunkSize: 5, mlpSave: 'input', recompute: 'attention' };

const hostBatch = { inputs: integers(2 * T, 23, 1), targets: integers(2 * T, 23, 2), T };

function batchOf(device: Device): Batch {
  const { inputs, targets } = hostBatch;
  return { inputs: tensor(inputs, { device }), targets: tensor(targets, { device }), T };
}

/** Numbers, in the parameter's dtype. */
function write(parameter: Tensor, values: Float32Array | Float64Array): void {
  parameter.write(parameter.dtype === 'float64' ? Float64Array.from(values) : Float32Array.from(values));
}

describe('families', () => {
  for (const [name, source] of Object.entries(sources)) {
    const config = decoderConfig({ ...tiny, ...source });
    const lossAndGradients = async (deviceName: DeviceName, dtype: 'float32' | 'float64') => {
      using device = openDevice(deviceName);
      using model = new Decoder(config, { device, dtype });
      const parameters = [...model.namedParameters()];
      for (const [i, [, parameter]] of parameters.entries()) {
        write(parameter, Float32Array.from(normals(parameter.size, 50 + i, 0.4)));
      }
      const tape = new Tape();
      using loss = tape.run(() => tidy(() => nextTokenLoss(model, batchOf(device), { policy }).loss));
      tape.backward(loss);
      const results = new Map([['loss', await valuesOf(loss)]]);
      for (const [parameterName, { grad }] of parameters) results.set(parameterName, await valuesOf(grad!));
      return results;
    };

    itOnCpu(`${name}: the gradient along random directions`, async () => {
      using device = openTestDevice();
      using model = new Decoder(config, { device, dtype: 'float64' });
      const parameters = [...model.namedParameters()];
      const values = parameters.map(([, parameter], i) => normals(parameter.size, 50 + i, 0.4));
      for (const [i, [, parameter]] of parameters.entries()) write(parameter, values[i]!);
      const lossOf = () => tidy(() => nextTokenLoss(model, batchOf(device), { policy }).loss);
      const tape = new Tape();
      const loss = tape.run(lossOf);
      tape.backward(loss);
      loss.dispose();
      const evaluate = async () => {
        const loss = noGrad(lossOf);
        const value = await loss.item();
        loss.dispose();
        return value;
      };
      const step = 1e-5;
      for (const [i, [parameterName, parameter]] of parameters.entries()) {
        const direction = normals(parameter.size, 500 + i);
        const moved = async (by: number) => {
          write(
            parameter,
            values[i]!.map((value, j) => value + by * direction[j]!),
          );
          return await evaluate();
        };
        const expected = ((await moved(step)) - (await moved(-step))) / (2 * step);
        write(parameter, values[i]!);
        const gradient = (await parameter.grad!.data()) as Float64Array;
        const found = gradient.reduce((sum, value, j) => sum + value * direction[j]!, 0);
        assert.ok(
          Math.abs(found - expected) <= 1e-7 * Math.abs(expected) + 1e-9,
          `${parameterName}: ${found}, by differences ${expected}`,
        );
      }
    });

    it(`${name}: loss and gradients in f32 are those of f64 on the CPU`, async () => {
      const [expected, found] = [
        await lossAndGradients('cpu', 'float64'),
        await lossAndGradients(testDevice, 'float32'),
      ];
      for (const [parameter, gradient] of found) assertClose(gradient, expected.get(parameter)!, 2e-5, parameter);
    });

    it(`${name}: 'meta' predicts the peak to the byte`, async () => {
      for (const recompute of ['none', 'attention', 'layer'] as const) {
        const step = { config, B: 2, T, dtype: 'bfloat16', policy: { ...policy, recompute } } as const;
        using device = openTestDevice();
        using model = new Decoder(config, { device, dtype: 'bfloat16' }).initialize(1);
        using optimizer = new AdamW(model.trainableParameters());
        using trainStep = new TrainStep(model, optimizer, { policy: step.policy });
        device.arena.resetPeak();
        await trainStep.run([hostBatch], { learningRate: 1e-3 });
        const simulated = simulateStep({ ...step, like: device.target });
        assert.equal(device.memory().peakBytes, simulated.peakBytes, recompute);
      }
    });
  }

  it('dynamic rope beyond its length refuses packed documents', () => {
    using device = openDevice('meta');
    using model = new Decoder(decoderConfig({ ...tiny, ...sources['llama, dynamic rope'] }), { device });
    const documentStart = tensor(new Int32Array(2 * T), { device });
    assert.throws(
      () => nextTokenLoss(model, { ...batchOf(device), documentStart }, { policy }),
      /dynamic rope beyond .* 8 .*T 11/,
    );
  });
});
