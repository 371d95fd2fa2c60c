// Refuses configs of quantised weights. The error names the method and says what to do.
import { brief } from '../../brief.ts';
import { type Fields, QUANTISED } from '../fields.ts';

export function refuseQuantised(fields: Fields): void {
  for (const name of QUANTISED) {
    const value = fields.object(name);
    const { quant_method: method = 'unknown method', bits, load_in_4bit: in4, load_in_8bit: in8 } = value;
    if (Object.keys(value).length === 0 || (in4 === false && in8 === false && !bits)) continue;
    const width = (bits ?? (in4 ? 4 : in8 ? 8 : undefined)) as number | undefined;
    const what = brief(method).replaceAll('"', '') + (width === undefined ? '' : `, ${brief(width)} bits`);
    fields.fail(
      name,
      value,
      `absent: quantised weights (${what}) are not supported; use the model that they were made from, or, if they have been ` +
        `dequantised since, ignoreFields: ['${name}'] (--ignore-fields ${name})`,
    );
  }
}
