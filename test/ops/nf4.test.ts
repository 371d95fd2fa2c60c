import assert from 'node:assert/strict';
import { dequantizeNf4, empty, openDevice, quantizeNf4, tensor, tidy } from '../../lib/index.ts';
import { toBfloat16 } from '../../lib/runtime/dtype.ts';
import { openTestDevice } from '../support/devices.ts';

/** Appendix E of the paper. */
const VALUES = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/** The signed dynamic map by its definition: for i < 7 the middles of 2^i equal parts of [0.1, 1] times 10^(i - 6), of both signs; 0 and 1. */
function dynamicMap(): number[] {
  const map = [0, 1];
  for (let i = 0; i < 7; i++) {
    for (let j = 0; j < 2 ** i; j++) {
      const middle = 10 ** (i - 6) * (0.1 + (0.9 * (j + 0.5)) / 2 ** i);
      map.push(middle, -middle);
    }
  }
  return map.sort((a, b) => a - b);
}

const nearest = (values: number[], x: number): number =>
  values.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(values[best]! - x) ? i : best), 0);

/** The formula in f64. */
function expected(x: ArrayLike<number>): Float64Array {
  const all = Float64Array.from(x);
  const map = dynamicMap();
  const largest: number[] = [];
  for (let i = 0; i < all.length; i += 64) largest.push(Math.max(...all.subarray(i, i + 64).map(Math.abs)));
  const mean = largest.reduce((sum, each) => sum + each, 0) / largest.length;
  const known = largest.map((each, b) => {
    const group = largest.slice(b - (b % 256), b - (b % 256) + 256);
    const scale = Math.max(...group.map((other) => Math.abs(other - mean)));
    return scale === 0 ? mean : map[nearest(map, (each - mean) / scale)]! * scale + mean;
  });
  return all.map((value, i) => {
    const of = largest[Math.floor(i / 64)]!;
    return of === 0 ? 0 : VALUES[nearest(VALUES, value / of)]! * known[Math.floor(i / 64)]!;
  });
}

/** Numbers of which none lies between two codes by chance: the same on every machine. */
const weights = (n: number) => Float32Array.from({ length: n }, (_, i) => 0.03 * Math.sin(i * i * 0.37 + i) ** 3);

describe('nf4', () => {
  for (const shape of [
    [1, 64],
    [3, 50],
    [5, 7],
    [1, 1],
    [264, 130],
  ]) {
    it(`is the formula in f64, elements in order across rows: (${shape})`, async () => {
      using device = openTestDevice();
      const x = weights(shape[0]! * shape[1]!);
      using source = tensor(x, { shape, device });
      const nf4 = quantizeNf4(source);
      using found = dequantizeNf4(nf4, shape, 'float32');
      const values = await found.toFloat32();
      expected(x).forEach((value, i) => {
        assert.ok(Math.abs(values[i]! - value) <= 1e-7 * 0.03 + 1e-6 * Math.abs(value), `${i}: ${values[i]}, ${value}`);
      });
      using rounded = dequantizeNf4(nf4, shape);
      assert.deepEqual(await rounded.data(), toBfloat16(values));
      for (const each of Object.values(nf4)) each.dispose();
    });
  }

  it('has the layout of bitsandbytes: the first element in the high half, codes that ascend', async () => {
    using device = openTestDevice();
    using x = tensor(
      Float32Array.from(VALUES, (value) => value * 2),
      { device },
    );
    const nf4 = quantizeNf4(x);
    assert.deepEqual([...(await nf4.codes.data())], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert.deepEqual([...(await nf4.absmax.data())], [127]);
    assert.deepEqual([...(await nf4.scales.data()), ...(await nf4.offset.data())], [0, 2]);
    using again = dequantizeNf4(nf4, [16], 'float32');
    assert.deepEqual(await again.toFloat32(), await x.toFloat32());
    for (const each of Object.values(nf4)) each.dispose();
  });

  it('gives values that are not finite for inputs that are not', async () => {
    using device = openTestDevice();
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const x = weights(200);
      x[70] = wrong;
      using source = tensor(x, { device });
      const nf4 = quantizeNf4(source);
      using found = dequantizeNf4(nf4, [200], 'float32');
      assert.ok(
        (await found.toFloat32()).every((value) => !Number.isFinite(value)),
        `${wrong}`,
      );
      for (const each of Object.values(nf4)) each.dispose();
    }
  });

  it('takes 4.127 bits a parameter', () => {
    using device = openDevice('meta');
    tidy(() => {
      const nf4 = quantizeNf4(empty([4096, 14336], { dtype: 'bfloat16', device }));
      const bytes = Object.values(nf4).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      assert.equal(((8 * bytes) / (4096 * 14336)).toFixed(3), '4.127');
    });
  });

  it('refuses tensors that are of another size or dtype', () => {
    using device = openDevice('meta');
    tidy(() => {
      const nf4 = quantizeNf4(empty([4, 64], { device }));
      assert.throws(() => dequantizeNf4(nf4, [5, 64]), /RangeError: dequantizeNf4: codes must be \(160\), got \(128\)/);
      const absmax = empty([4], { device });
      assert.throws(() => dequantizeNf4({ ...nf4, absmax }, [4, 64]), /absmax must be uint8, got float32/);
      assert.throws(() => quantizeNf4(empty([4], { dtype: 'int32', device })), /quantizeNf4: x must be float32/);
      assert.throws(() => dequantizeNf4(nf4, [4, 64], 'int32' as never), /dequantizeNf4: dtype must be float32/);
    });
  });
});
