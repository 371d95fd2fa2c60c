// Reads documents and conversations from files, one at a time: a data set may be larger than memory.
import type { Source } from './bytes.ts';
import { table } from './csv.ts';
import { formatOf, type Kind } from './formats.ts';
import { type FormOptions, toRecord } from './forms.ts';
import { jsonFile } from './json_file.ts';
import { jsonLines } from './json_lines.ts';
import { parquet } from './parquet.ts';
import { plainText } from './plain_text.ts';
import type { DocumentPart, Row } from './record.ts';
import { sniff } from './sniff.ts';

/**
 * Yields the records of files, in order. The ending of a name tells the format (formats.ts), also with .gz after it. If it does not, or
 * says text, the beginning of the file decides. A text file is one document. Throws an Error that names file, line and field; a file
 * without records is an error.
 */
export async function* readRecords(files: readonly string[], options: FormOptions): AsyncGenerator<DocumentPart> {
  for (const path of files) {
    const { kind, isGzip } = formatOf(path);
    const source = { path, isGzip };
    const found = kind === 'text' || kind === 'other' ? await sniff(source, kind) : kind;
    if (found === 'text') {
      yield* plainText(source);
      continue;
    }
    let isEmpty = true;
    for await (const { value, place } of rowsOf(source, found)) {
      isEmpty = false;
      yield { ...toRecord(value, place, options), isEnd: true, place };
    }
    if (isEmpty) throw new Error(`${path}: has no records`);
  }
}

function rowsOf(source: Source, kind: Kind): AsyncGenerator<Row> {
  if (kind === 'lines') return jsonLines(source);
  if (kind === 'json') return jsonFile(source);
  if (kind === 'parquet') return parquet(source.path);
  return table(source, kind === 'tsv' ? '\t' : ',');
}
