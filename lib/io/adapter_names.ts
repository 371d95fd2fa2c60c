// Names of tensors in a file of adapters: as PEFT writes them, and as wrappers and older tools leave them.

/** What PEFT puts before a module's own name. */
export const PREFIX = 'base_model.model.';

/** What a tensor is: part of an adapter, or a weight of the model that was saved beside adapters. */
export type AdapterTensor =
  | {
      part: 'lora_A' | 'lora_B';
      /** The module's name here, 'model.layers.0.self_attn.q_proj', and in the model that PEFT wrapped, which may lack 'model.'. */
      path: string;
      module: string;
    }
  | {
      part: 'weight';
      /** 'model.embed_tokens.weight' */
      name: string;
    };

/** What the model has, by name. */
export interface Places {
  projections: ReadonlyMap<string, unknown>;
  parameters: ReadonlyMap<string, unknown>;
}

/** Modules of torch that others are wrapped in. */
const WRAPPERS = /(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)/g;

/** null: the model has no place for it. */
export function parseTensorName(name: string, { projections, parameters }: Places): AdapterTensor | null {
  const unwrapped = name.replace(WRAPPERS, '').replace(/^\.?(?:module\.)?/, '');
  const inner = unwrapped.startsWith(PREFIX) ? unwrapped.slice(PREFIX.length) : unwrapped;
  const adapter = /^(.+)\.(lora_[AB])(?:\.[^.]+)?\.weight$/.exec(inner);
  if (adapter) {
    const [, module, part] = adapter as unknown as [string, string, 'lora_A' | 'lora_B'];
    const path = known(module, (path) => projections.has(path));
    return path === null ? null : { part, path, module };
  }
  const plain = inner
    .replace(/\.(?:base_layer|original_module)(?=\.)/g, '')
    .replace(/\.modules_to_save(?:\.[^.]+)?(?=\.(?:weight|bias)$)/, '');
  const weight = known(plain, (path) => parameters.has(path) || path === 'lm_head.weight');
  return weight === null ? null : { part: 'weight', name: weight };
}

/** The name, or with the prefix that a base model's own names lack. */
function known(name: string, has: (name: string) => boolean): string | null {
  return [name, `model.${name}`].find(has) ?? null;
}
