// Records of files that a test writes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readRecords } from '../../lib/text/records/read_records.ts';
import type { DataRecord } from '../../lib/text/records/record.ts';

const root = mkdtempSync(join(tmpdir(), 'records-'));
process.once('exit', () => rmSync(root, { recursive: true, force: true }));

/** A file of this name in a new folder; its path. */
export function writtenFile(name: string, content: string | Uint8Array): string {
  const path = join(mkdtempSync(join(root, 'case-')), name);
  writeFileSync(path, content);
  return path;
}

/** All records of files, for a model with a chat template; parts of a text are joined. */
export async function recordsOf(files: string[]): Promise<DataRecord[]> {
  const records: DataRecord[] = [];
  let text = '';
  for await (const { record, isEnd } of readRecords(files, { hasChatTemplate: true })) {
    if ('text' in record) text += record.text;
    if (isEnd) records.push('text' in record ? { text } : record);
    if (isEnd) text = '';
  }
  return records;
}
