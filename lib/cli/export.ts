// minisequence export
import { type ExportType, exportGguf } from '../export/export_gguf.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';

export interface ExportArguments {
  model: string;
  gguf: string;
  type: ExportType;
  ignoreFields?: string[];
}

/** Writes a model's folder as a GGUF file. */
export async function runExport({ model, gguf, type, ignoreFields }: ExportArguments): Promise<void> {
  const { architecture, tensors, bytes, contextLength } = await exportGguf(model, gguf, { type, ignoreFields });
  console.log(
    `wrote ${gguf}: ${architecture}, ${tensors} tensors, ${formatBytes(bytes)}, matrices in ${type}, up to ${contextLength} tokens`,
  );
}
