// Configs of quantised weights: NF4 of bitsandbytes with double quantisation is read; all others are refused by an error that names the method
// and says what to do.
import { brief } from '../../brief.ts';
import type { Quantization } from '../decoder_config.ts';
import { type Fields, type HuggingFaceConfig, QUANTISED } from '../fields.ts';

/** How the folder stores projections; null: as other weights. */
export function quantizationOf(fields: Fields): Quantization | null {
  for (const name of QUANTISED) {
    const value = fields.object(name);
    const { quant_method: method = 'unknown method', bits, load_in_4bit: in4, load_in_8bit: in8 } = value;
    if (Object.keys(value).length === 0 || (in4 === false && in8 === false && !bits)) continue;
    const problem = method === 'bitsandbytes' && in4 === true ? problemOf(value) : null;
    if (problem === '') return 'nf4';
    const width = (bits ?? (in4 ? 4 : in8 ? 8 : undefined)) as number | undefined;
    const what =
      brief(method).replaceAll('"', '') +
      (width === undefined ? '' : `, ${brief(width)} bits`) +
      (problem ? `, ${problem}` : '');
    fields.fail(
      name,
      value,
      `absent: quantised weights (${what}) are not supported; use the model that they were made from, or, if they have been ` +
        `dequantised since, ignoreFields: ['${name}'] (--ignore-fields ${name})`,
    );
  }
  return null;
}

/** What is not read of bitsandbytes' settings for 4 bits, whose defaults are those of transformers' BitsAndBytesConfig; empty: all is. */
function problemOf({
  bnb_4bit_quant_type: type = 'fp4',
  bnb_4bit_use_double_quant: isNested = false,
  bnb_4bit_quant_storage: storage = 'uint8',
}: HuggingFaceConfig): string {
  const problems = [
    type !== 'nf4' && `bnb_4bit_quant_type ${brief(type)}, only nf4 is read`,
    isNested !== true && `bnb_4bit_use_double_quant ${brief(isNested)}, only true is read`,
    storage !== 'uint8' && `bnb_4bit_quant_storage ${brief(storage)}, only uint8 is read`,
  ];
  return problems.filter((problem) => problem !== false).join(', ');
}
