// Which class config.json says the weights are of. Another one than the family's own may compute otherwise under the same names.
import type { Fields } from './fields.ts';

/** Refuses `architectures` of another class than the family's, and remote code (`auto_map`) for the model that has another name. */
export function requireOwnClass(fields: Fields, architecture: string): void {
  const own = [architecture, architecture.replace(/ForCausalLM$/, 'Model')];
  const required = (name: string) =>
    `${own.join(' or ')}: another class may compute otherwise; where it is known to compute the same, ` +
    `ignoreFields: ['${name}'] (--ignore-fields ${name}) passes over it`;
  // Older files spell LLaMAForCausalLM.
  const isOwn = (name: unknown) =>
    typeof name === 'string' && own.some((one) => one.toLowerCase() === name.toLowerCase());
  const architectures = fields.get('architectures') ?? [];
  if (![architectures].flat().every(isOwn)) fields.fail('architectures', architectures, required('architectures'));
  const map = fields.object('auto_map');
  for (const auto of ['AutoModel', 'AutoModelForCausalLM']) {
    if (!Object.hasOwn(map, auto)) continue;
    const name = String(map[auto]).split('.').at(-1); // 'org/name--modeling_x.XForCausalLM'
    if (!isOwn(name)) fields.fail(`auto_map.${auto}`, map[auto], required('auto_map'));
  }
}
