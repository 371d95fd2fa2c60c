// Safetensors files byte by byte, and errors that name them.
import assert from 'node:assert/strict';
import { SafetensorsError } from '../../lib/io/safetensors.ts';

/** A file of this header (JSON, unless it is text or bytes) and so many bytes of data. */
export function fileOf(header: unknown, dataBytes = 0, length?: bigint): Uint8Array {
  const json =
    header instanceof Uint8Array
      ? header
      : new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

/** A tensor's entry in a header. */
export const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

/** Fails unless `fn` rejects with a SafetensorsError that has all of these in its message. */
export async function rejectsWith(fn: () => Promise<unknown>, ...parts: string[]): Promise<void> {
  await assert.rejects(fn, (error: Error) => {
    assert.ok(error instanceof SafetensorsError, String(error));
    for (const part of parts) assert.ok(error.message.includes(part), `${error.message}: lacks ${part}`);
    return true;
  });
}
