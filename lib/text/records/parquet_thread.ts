// The thread on which parquet is read: it can be ended if a damaged or malicious file makes the library hang or fills the memory.
import { open } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { formatJson } from '../json.ts';
import { KNOWN_FIELDS } from './forms.ts';
import { checkColumn, PARSERS, toJsonValue } from './parquet_value.ts';

/** Characters of JSON that are sent at once, unless a single row is longer. */
const BATCH = 2 ** 22;

/** @param beats counts progress, for the thread that watches */
const { path, beats } = workerData as { path: string; beats: Int32Array };
const beat = () => Atomics.add(beats, 0, 1);

/** Yields rows as JSON, in batches. Columns that no form uses are not read, but their presence is reported. */
async function* batchesOf(): AsyncGenerator<string[]> {
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await optional(import('hyparquet'));
  const { compressors } = await optional(import('hyparquet-compressors'));
  beat();
  const handle = await open(path);
  try {
    const { size } = await handle.stat();
    const file = {
      byteLength: size,
      async slice(begin: number, end = size) {
        beat();
        const bytes = new Uint8Array(end - begin);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, begin);
        if (bytesRead < bytes.length) throw new Error(`ends ${bytes.length - bytesRead} bytes early`);
        return bytes.buffer as ArrayBuffer;
      },
    };
    const metadata = await parquetMetadataAsync(file);
    const tops = parquetSchema(metadata).children;
    const used = tops.filter(({ element }) => KNOWN_FIELDS.has(element.name));
    used.forEach(checkColumn);
    const unused = tops.filter((top) => !used.includes(top)).map(({ element }) => [element.name, true] as const);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const columns = used.map(({ element }) => element.name);
      const rows =
        used.length === 0
          ? [{}]
          : await parquetReadObjects({
              file,
              metadata,
              compressors,
              columns,
              rowStart,
              rowEnd,
              parsers: PARSERS,
              onPage: beat,
            });
      rowStart = rowEnd;
      let batch: string[] = [];
      let length = 0;
      for (const row of rows) {
        const values = used.map((node) => [node.element.name, toJsonValue(row[node.element.name], node)] as const);
        const json = formatJson(Object.fromEntries([...values, ...unused]));
        beat();
        batch.push(json);
        length += json.length;
        if (length < BATCH) continue;
        yield batch;
        batch = [];
        length = 0;
      }
      if (batch.length > 0) yield batch;
    }
  } finally {
    await handle.close();
  }
}

async function optional<T>(library: Promise<T>): Promise<T> {
  try {
    return await library;
  } catch (error) {
    throw new Error('parquet files need two more packages; run  npm install hyparquet hyparquet-compressors', {
      cause: error,
    });
  }
}

const batches = batchesOf();
parentPort!.on('message', () => {
  batches.next().then(
    ({ value, done }) => parentPort!.postMessage(done ? { isEnd: true } : { batch: value }),
    (error: Error) => parentPort!.postMessage({ error: error.message }),
  );
});
