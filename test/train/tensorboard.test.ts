// Event files of TensorBoard, read back by the published framing: TFRecord with masked CRC-32C, and protocol buffers.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunEvent } from '../../lib/index.ts';
import { crc32c, record } from '../../lib/train/tensorboard.ts';
import { newFolder, run, tinyRun } from '../support/runs.ts';

/** Fields of a message by number: varints and fixed ones as numbers, the others as bytes. */
function fieldsOf(message: Buffer): [field: number, value: number | Buffer][] {
  const fields: [number, number | Buffer][] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  const skip = (bytes: number) => {
    at += bytes;
    return at - bytes;
  };
  while (at < message.length) {
    const key = varint();
    const [field, kind] = [key >> 3, key & 7];
    if (kind === 0) fields.push([field, varint()]);
    else if (kind === 1) fields.push([field, message.readDoubleLE(skip(8))]);
    else if (kind === 5) fields.push([field, message.readFloatLE(skip(4))]);
    else if (kind === 2) {
      const length = varint();
      fields.push([field, message.subarray(skip(length), at)]);
    } else assert.fail(`kind ${kind}`);
  }
  return fields;
}

/** Data of the records, each with its checksums right: crc = rotated by 15 bits to the right, plus a constant. */
function recordsOf(file: Buffer): Buffer[] {
  const unmasked = (value: number) => {
    const rotated = (value - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  const records: Buffer[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    assert.equal(unmasked(file.readUInt32LE(at + 8)), crc32c(file.subarray(at, at + 8)));
    assert.equal(unmasked(file.readUInt32LE(at + 12 + length)), crc32c(data));
    records.push(data);
    at += length + 16;
  }
  return records;
}

interface Told {
  step: number;
  version?: string;
  start?: boolean;
  scalars: Record<string, number>;
}

function eventsIn(path: string): Told[] {
  return recordsOf(readFileSync(path)).map((data) => {
    const told: Told = { step: 0, scalars: {} };
    for (const [field, value] of fieldsOf(data)) {
      if (field === 1) assert.ok(Math.abs(Number(value) - Date.now() / 1000) < 600, 'wall_time in seconds');
      else if (field === 2) told.step = Number(value);
      else if (field === 3) told.version = String(value);
      else if (field === 7) told.start = fieldsOf(value as Buffer)[0]![1] === 1;
      else if (field === 5) {
        for (const [, scalar] of fieldsOf(value as Buffer)) {
          const [[, tag], [, number]] = fieldsOf(scalar as Buffer) as [[number, Buffer], [number, number]];
          told.scalars[String(tag)] = number;
        }
      } else assert.fail(`field ${field}`);
    }
    return told;
  });
}

const filesIn = (outDir: string) => {
  const names = readdirSync(join(outDir, 'tensorboard')).sort();
  for (const name of names) assert.match(name, /^events\.out\.tfevents\.\d{10}\./);
  return names.map((name) => join(outDir, 'tensorboard', name));
};

describe("TensorBoard's records", () => {
  it('have the checksums of RFC 3720 and the frame that every event file begins with', () => {
    assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
    assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
    assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
    assert.equal(Buffer.from(record(new Uint8Array(24)).subarray(0, 12)).toString('hex'), '1800000000000000a37f4b22');
  });
});

describe('a run with tensorboard', () => {
  const data = { ...tinyRun().data, validation: { fraction: 0.2 } };
  const options = { data, evaluation: { everySteps: 2 }, checkpoint: { everySteps: 2 }, tensorboard: true };

  it('writes the numbers of metrics.jsonl as scalars', async () => {
    const { outDir, metrics } = await run({ ...options, maxSteps: 4 });
    const [version, start, ...events] = eventsIn(filesIn(outDir)[0]!);
    assert.deepEqual(version, { step: 0, version: 'brain.Event:2', scalars: {} });
    assert.deepEqual(start, { step: 1, start: true, scalars: {} });
    const f32 = (values: Record<string, number>) =>
      Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Math.fround(value)]));
    const ofSteps = events.filter(({ scalars }) => 'train/loss' in scalars);
    assert.deepEqual(
      ofSteps,
      metrics.map(({ step, loss, gradNorm, learningRate, tokensPerSecond }) => ({
        step,
        scalars: f32({
          'train/loss': loss,
          'train/gradient_norm': gradNorm,
          'train/learning_rate': learningRate,
          'train/tokens_per_second': tokensPerSecond,
        }),
      })),
    );
    const validations = events.filter(({ scalars }) => 'validation/loss' in scalars);
    assert.deepEqual(
      validations.map(({ step }) => step),
      [2, 4],
    );
    for (const { scalars } of validations)
      assert.ok(Math.abs(Math.exp(scalars['validation/loss']!) / scalars['validation/perplexity']! - 1) < 1e-5);
  });

  it('that is continued begins a file that says from which step on the others no longer hold', async () => {
    const outDir = newFolder();
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => step === 3 && stop.abort();
    await run({ ...options, maxSteps: 6, outDir }, { onStep, signal: stop.signal });
    const [first] = filesIn(outDir);
    const done = Math.max(...eventsIn(first!).map(({ step }) => step));
    await run({ ...options, maxSteps: 6, outDir }, { resume: true });
    const second = filesIn(outDir).find((name) => name !== first)!;
    const [, start, ...events] = eventsIn(second);
    const steps = events.filter(({ scalars }) => 'train/loss' in scalars).map(({ step }) => step);
    assert.deepEqual([start!.start, start!.step, steps[0], steps.at(-1)], [true, done + 1, done + 1, 6]);
  });

  it('writes none unless it is asked to', async () => {
    const { outDir } = await run({ maxSteps: 1 });
    assert.ok(!readdirSync(outDir).includes('tensorboard'));
  });

  it('refuses a file of this name; one that cannot be written is a warning', async () => {
    const outDir = newFolder();
    writeFileSync(join(outDir, 'tensorboard'), '');
    await assert.rejects(run({ ...options, maxSteps: 1, outDir }), /tensorboard: is a file/);
    const other = newFolder();
    symlinkSync(join(other, 'nowhere', 'at all'), join(other, 'tensorboard'));
    const warnings: string[] = [];
    const onEvent = (event: RunEvent) => event.type === 'warning' && warnings.push(event.warning.code);
    await run({ ...options, maxSteps: 2, outDir: other }, { onEvent });
    assert.deepEqual(warnings, ['report']);
  });
});
