// Parses the names of tensors in adapter files: PEFT's, and variants of wrappers and older tools.

/** PEFT's prefix of module names. */
export const PREFIX = 'base_model.model.';

/** A tensor is part of an adapter, or a weight of the model that was saved with the adapters. */
export type AdapterTensor =
  | {
      part: 'lora_A' | 'lora_B';
      /** The module's name here, such as 'model.layers.0.self_attn.q_proj', and its name in PEFT's model, which may lack 'model.'. */
      path: string;
      module: string;
    }
  | {
      part: 'weight';
      /** 'model.embed_tokens.weight' */
      name: string;
    };

/** Which names the model has. */
export interface Places {
  projections: ReadonlyMap<string, unknown>;
  parameters: ReadonlyMap<string, unknown>;
  /** Whether the model is the text part of a larger one, whose names have 'language_model'. */
  isTextPart: boolean;
}

/** The name of a module in PEFT's model, which is the larger model where there is one. */
export function peftName(path: string, isTextPart: boolean): string {
  return isTextPart ? path.replace(/^model\./, 'model.language_model.') : path;
}

/** torch's wrapper modules, whose names are skipped. */
const WRAPPERS = /(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)/g;

/** null if the model has no place for the tensor. */
export function parseTensorName(name: string, places: Places): AdapterTensor | null {
  const { projections, parameters, isTextPart } = places;
  /** The name as it is here, or with the prefix 'model.', which names of base models lack. */
  const known = (name: string, has: (name: string) => boolean): string | null => {
    const inside = isTextPart
      ? name.replace(/^(model\.)?language_model\.(model\.)?/, (all) => (all === 'language_model.' ? '' : 'model.'))
      : name;
    return [inside, `model.${inside}`].find(has) ?? null;
  };
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
