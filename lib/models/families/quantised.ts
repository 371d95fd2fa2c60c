// Configs of quantised weights are refused, with the method and what to do.
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
      `absent: the weights are quantised (${what}), which is not read; take the model that they were made from, or, where they were ` +
        `dequantised since, ignoreFields: ['${name}'] (--ignore-fields ${name})`,
    );
  }
}
