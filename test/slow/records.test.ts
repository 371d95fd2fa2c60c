// Limits that take a long file to reach.
import assert from 'node:assert/strict';
import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { recordsOf, writtenFile } from '../support/records.ts';

/** A file of some hundred kB that unpacks to `begin` and 300 MiB of x. */
async function bomb(name: string, begin: string): Promise<string> {
  const path = writtenFile(name, '');
  const piece = Buffer.alloc(2 ** 20, 'x');
  const pieces = [Buffer.from(begin), ...Array<Buffer>(300).fill(piece)];
  await pipeline(Readable.from(pieces), createGzip({ level: 1 }), createWriteStream(path));
  return path;
}

describe('limits of records', () => {
  it('a line of more than 256 MiB', async () => {
    const path = await bomb('bomb.jsonl.gz', '{"text":"a"}\n{"text":"');
    await assert.rejects(recordsOf([path]), /bomb\.jsonl\.gz:2: the line has more than 268435456 bytes$/);
  });

  it('an element of a list of more than 256 MiB', async () => {
    const path = await bomb('bomb.json.gz', '[{"text":"a"},{"text":"');
    await assert.rejects(recordsOf([path]), /bomb\.json\.gz\[1\]: the value has more than 268435456 bytes/);
  });

  it('a row of more than 256 MiB', async () => {
    const path = await bomb('bomb.csv.gz', 'text\na\n"');
    await assert.rejects(recordsOf([path]), /bomb\.csv\.gz:3: the line has more than 268435456 bytes$/);
  });
});
