// Tables of separated values, as in RFC 4180.
import { linesOf, MAX_LINE, type Source } from './bytes.ts';
import type { Row } from './record.ts';

/** A cell; null if it is empty and not quoted. */
type Cell = string | null;

/** Yields rows as objects, by the names in the first row. Cells are text; an empty one is null, unless it is written "". */
export async function* table(source: Source, separator: ',' | '\t'): AsyncGenerator<Row> {
  const { path } = source;
  let names: string[] | null = null;
  for await (const { cells, number } of rowsOf(source, separator)) {
    const place = `${path}:${number}`;
    if (names === null) {
      names = cells.map((cell) => (cell ?? '').trim());
      checkNames(names, place, separator);
      continue;
    }
    if (cells.length !== names.length) {
      throw new Error(`${place}: has ${cells.length} cells where the first row has ${names.length}`);
    }
    yield { value: Object.fromEntries(names.map((name, i) => [name, cells[i]])), place };
  }
}

function checkNames(names: readonly string[], place: string, separator: string): void {
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new Error(`${place}: has two columns named ${JSON.stringify(twice)}`);
  const other = [',', ';', '\t', '|'].find((one) => one !== separator && names.length === 1 && names[0]!.includes(one));
  if (other) throw new Error(`${place}: has one column; its values seem to be separated by ${JSON.stringify(other)}`);
}

/** Yields rows with the number of the line on which each begins. Skips empty lines. */
async function* rowsOf(source: Source, separator: string): AsyncGenerator<{ cells: Cell[]; number: number }> {
  let open: { reader: RowReader; number: number; length: number } | null = null; // a row that continues on the next line
  for await (const { line, number } of linesOf(source)) {
    if (!open && (line === '' || line === '\r')) continue;
    open ??= { reader: new RowReader(separator), number, length: 0 };
    const place = `${source.path}:${open.number}`;
    open.length += line.length;
    if (open.length > MAX_LINE)
      throw new Error(`${place}: the row has more than ${MAX_LINE} characters; is a quote not closed?`);
    const cells = open.reader.read(line, place);
    if (cells === null) continue;
    yield { cells, number: open.number };
    open = null;
  }
  if (open) throw new Error(`${source.path}:${open.number}: a quote is not closed`);
}

class RowReader {
  readonly #separator: string;
  readonly #cells: Cell[] = [];
  /** The parts of a quoted cell that has not ended. */
  #parts: string[] | null = null;

  constructor(separator: string) {
    this.#separator = separator;
  }

  /** @returns null if the line ends within quotes, so that the row continues */
  read(line: string, place: string): Cell[] | null {
    let at = 0;
    for (;;) {
      if (this.#parts === null && line[at] === '"') {
        this.#parts = [];
        at += 1;
      }
      if (this.#parts === null) {
        const end = line.indexOf(this.#separator, at);
        const cell = end < 0 ? line.slice(at).replace(/\r$/, '') : line.slice(at, end);
        if (cell.includes('\r')) throw lineEnd(place);
        this.#cells.push(cell === '' ? null : cell);
        if (end < 0) return this.#cells;
        at = end + 1;
        continue;
      }
      const quote = line.indexOf('"', at);
      if (quote < 0) {
        this.#parts.push(line.slice(at), '\n');
        return null;
      }
      this.#parts.push(line.slice(at, quote));
      at = quote + 1;
      if (line[at] === '"') {
        this.#parts.push('"');
        at += 1;
        continue;
      }
      this.#cells.push(this.#parts.join(''));
      this.#parts = null;
      if (at === line.length || (line[at] === '\r' && at + 1 === line.length)) return this.#cells;
      if (line[at] === '\r') throw lineEnd(place);
      if (line[at] !== this.#separator) {
        throw new Error(`${place}: cell ${this.#cells.length} continues after its closing quote`);
      }
      at += 1;
    }
  }
}

function lineEnd(place: string): Error {
  return new Error(
    `${place}: has \\r without \\n outside quotes; end lines with \\n or \\r\\n, and put cells with \\r in quotes`,
  );
}
