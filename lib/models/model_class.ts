// Checks the class that config.json names. A class other than the family's may compute something else from the same weights.
import type { Fields } from './fields.ts';

/** Refuses `architectures` other than the family's class, and remote code (`auto_map`) whose model class has another name. */
export function requireOwnClass(fields: Fields, architecture: string): void {
  const own = [architecture, architecture.replace(/For(CausalLM|ConditionalGeneration)$/, 'Model')];
  const required = (name: string) =>
    `${own.join(' or ')}: another class may compute something else; if you know that it computes the same, ` +
    `ignore the field with ignoreFields: ['${name}'] (--ignore-fields ${name})`;
  // Older files have LLaMAForCausalLM.
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
