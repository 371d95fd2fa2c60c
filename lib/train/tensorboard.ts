// Event files of TensorBoard: scalars in protocol buffers (tensorflow/core/util/event.proto, framework/summary.proto), each in a TFRecord.
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { writeFully } from '../io/whole_file.ts';
import type { RunEvent } from './events.ts';

const TENSORBOARD_FOLDER = 'tensorboard';

/** Counts the files of this process, as their names do. */
let numFiles = 0;

export class TensorBoardFile {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Begins a file in `tensorboard/`. What earlier files there hold of later steps than `step` is to be forgotten, and says so. */
  static async open(outDir: string, step: number): Promise<TensorBoardFile> {
    const folder = join(outDir, TENSORBOARD_FOLDER);
    await mkdir(folder, { recursive: true });
    const seconds = Math.floor(Date.now() / 1000);
    const name = `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${numFiles++}`;
    const file = new TensorBoardFile(await open(join(folder, name), 'wx'));
    await file.#write(record(versionEvent()), record(sessionStart(step + 1)));
    return file;
  }

  /** Writes the scalars of an event that has some. */
  async keep(event: RunEvent): Promise<void> {
    if (event.type === 'step') {
      const { step, loss, gradNorm, learningRate, tokensPerSecond } = event.metrics;
      const scalars = {
        loss,
        gradient_norm: gradNorm,
        learning_rate: learningRate,
        tokens_per_second: tokensPerSecond,
      };
      await this.#write(record(scalarEvent(step, 'train', scalars)));
    } else if (event.type === 'evaluation') {
      const { step, validationLoss, perplexity } = event.metrics;
      await this.#write(record(scalarEvent(step, 'validation', { loss: validationLoss, perplexity })));
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #write(...records: Uint8Array[]): Promise<void> {
    await writeFully(this.#handle, Buffer.concat(records));
  }
}

/** length u64 · masked CRC-32C of it · data · masked CRC-32C of the data; little-endian (tensorflow/core/lib/io/record_writer.h). */
export function record(data: Uint8Array): Uint8Array {
  const framed = Buffer.alloc(data.length + 16);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(masked(crc32c(framed.subarray(0, 8))), 8);
  framed.set(data, 12);
  framed.writeUInt32LE(masked(crc32c(data)), 12 + data.length);
  return framed;
}

/** Rotated right by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h). */
const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

/** By byte, for the reflected Castagnoli polynomial. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}

/** Kinds of fields on the wire. */
const [VARINT, DOUBLE, BYTES, FLOAT] = [0, 1, 2, 5];
const key = (field: number, kind: number) => Buffer.of((field << 3) | kind);

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Buffer.from([...bytes, Number(rest)]);
}

const lengthDelimited = (field: number, content: Uint8Array) =>
  Buffer.concat([key(field, BYTES), varint(content.length), content]);
const text = (field: number, value: string) => lengthDelimited(field, Buffer.from(value));

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, FLOAT), bytes]);
}

/** wall_time = 1, step = 2; and the rest. */
function event(step: number, rest: Uint8Array): Buffer {
  const time = Buffer.alloc(8);
  time.writeDoubleLE(Date.now() / 1000);
  const ofStep = step === 0 ? Buffer.of() : Buffer.concat([key(2, VARINT), varint(step)]);
  return Buffer.concat([key(1, DOUBLE), time, ofStep, rest]);
}

/** file_version = 3. */
const versionEvent = () => event(0, text(3, 'brain.Event:2'));

/** session_log = 7 { status = 1: START }: of other files, what has this step or a later one no longer holds. */
const sessionStart = (step: number) => event(step, lengthDelimited(7, Buffer.concat([key(1, VARINT), varint(1)])));

/** summary = 5 { repeated value = 1 { tag = 1, simple_value = 2 } } */
function scalarEvent(step: number, group: string, scalars: Record<string, number>): Buffer {
  const values = Object.entries(scalars).map(([name, value]) =>
    lengthDelimited(1, Buffer.concat([text(1, `${group}/${name}`), float(2, value)])),
  );
  return event(step, lengthDelimited(5, Buffer.concat(values)));
}
