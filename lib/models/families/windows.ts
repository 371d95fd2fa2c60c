// Length of each layer's sliding window, in positions; 0: no window.
import type { Fields } from '../fields.ts';
import { isEmpty } from '../inert_fields.ts';

/** Reads the field sliding_window. */
export function slidingWindow(fields: Fields): number {
  return fields.isNull('sliding_window') ? 0 : fields.count('sliding_window', 4096);
}

/** The window of each layer. layer_types says which layers have one; if it is absent, `isSliding` does. */
export function layerWindows(
  fields: Fields,
  numLayers: number,
  window: number,
  isSliding: (layer: number) => boolean,
): number[] {
  const types = fields.get('layer_types');
  if (types === undefined || isEmpty(types))
    return Array.from({ length: numLayers }, (_, layer) => (isSliding(layer) ? window : 0));
  if (!Array.isArray(types) || types.length !== numLayers) fields.fail('layer_types', types, `a list of ${numLayers}`);
  return (types as unknown[]).map((type) => {
    if (type === 'full_attention') return 0;
    if (type !== 'sliding_attention') fields.fail('layer_types', type, 'full_attention or sliding_attention');
    if (window === 0) fields.fail('layer_types', type, 'full_attention where sliding windows are off');
    return window;
  });
}

/** Without layer_types, all layers have a window except every sliding_window_pattern-th. */
export function slidingPattern(fields: Fields, fallback: number): (layer: number) => boolean {
  const value = fields.get('sliding_window_pattern'); // EXAONE 4 has 'LLLG' in addition to layer_types
  if (fields.get('layer_types') !== undefined) return () => false;
  if (fields.isNull('sliding_window_pattern')) fields.fail('sliding_window_pattern', value, 'a number of layers');
  const pattern = fields.count('sliding_window_pattern', fallback);
  return (layer) => (layer + 1) % pattern !== 0;
}

/** Qwen's rule: the first max_window_layers layers have no window. */
export function qwenWindows(fields: Fields, numLayers: number): number[] {
  const isUsed = fields.boolean('use_sliding_window', false);
  const fullLayers = fields.number('max_window_layers', 28);
  const window = slidingWindow(fields);
  return layerWindows(fields, numLayers, isUsed ? window : 0, (layer) => layer >= fullLayers);
}

/** Refuses a window in a config of a family that has none. */
export function onlyFullAttention(fields: Fields): void {
  const types = fields.get('layer_types') ?? [];
  const isFull = Array.isArray(types) && types.every((type) => type === 'full_attention');
  if (!isFull) fields.fail('layer_types', types, 'full_attention for every layer');
  const isUsed = fields.boolean('use_sliding_window', true);
  const window = fields.get('sliding_window');
  if (isUsed && window !== undefined) fields.fail('sliding_window', window, 'absent, or use_sliding_window false');
}
