// The format of a file, by its name.
import { basename } from 'node:path';

/**
 * 'lines': JSON lines. 'json': one list, an object that has one, or JSON lines. 'other': JSON lines or text, judged by the beginning of the
 * file.
 */
export type Kind = 'lines' | 'json' | 'csv' | 'tsv' | 'parquet' | 'text' | 'other';

export interface Format {
  kind: Kind;
  isGzip: boolean;
}

const KINDS: Record<string, Kind> = {
  jsonl: 'lines',
  ndjson: 'lines',
  jsonlines: 'lines',
  json: 'json',
  csv: 'csv',
  tsv: 'tsv',
  tab: 'tsv',
  parquet: 'parquet',
  pq: 'parquet',
  txt: 'text',
  text: 'text',
  md: 'text',
  markdown: 'text',
  rst: 'text',
  tex: 'text',
};

const CONVERT = 'convert it to .jsonl or .parquet';
const AS_TEXT = `${CONVERT}; to train on its text as it stands, name it .txt`;
const UNPACK = 'unpack it, or compress it with gzip (.gz)';

/** File endings that would be read as something else, and what to do with such files. */
const REFUSED: [string, string][] = [
  ['yaml yml json5 jsonc toml xml html htm xhtml rtf ipynb sql', AS_TEXT],
  ['arrow feather avro orc xlsx xls ods pkl pickle npy npz h5 hdf5 msgpack tfrecord db sqlite sqlite3 lance', CONVERT],
  ['bin idx pt pth ckpt safetensors gguf onnx', 'it holds tensors or binary data, no records'],
  ['pdf doc docx odt ppt pptx epub mobi ps djvu', 'extract its text to .txt'],
  ['png jpg jpeg gif webp bmp tif tiff svg mp3 wav flac ogg mp4 mkv avi webm', 'text alone can be trained on'],
  ['zip tar tgz 7z rar', 'unpack it and name the files, the folder or a pattern'],
  ['zst zstd bz2 xz lz4 lzma br z', UNPACK],
];
const ADVICE = new Map(REFUSED.flatMap(([endings, what]) => endings.split(' ').map((ending) => [ending, what])));

/** The format by the ending of the name, in upper or lower case. Throws an Error with advice for formats that are not supported. */
export function formatOf(path: string): Format {
  const isGzip = /\.gz(ip)?$/i.test(path);
  const name = basename(isGzip ? path.slice(0, path.lastIndexOf('.')) : path);
  const ending = /[^.]\.([^.]+)$/.exec(name)?.[1]?.toLowerCase() ?? '';
  const advice = ADVICE.get(ending);
  if (advice) throw new Error(`${path}: .${ending} is not supported: ${advice}`);
  const kind = Object.hasOwn(KINDS, ending) ? KINDS[ending]! : 'other';
  if (kind === 'parquet' && isGzip) throw new Error(`${path}: decompress it; parquet is compressed inside`);
  return { kind, isGzip };
}
