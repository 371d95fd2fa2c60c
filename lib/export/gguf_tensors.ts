// Tensors of a model's folder as llama.cpp names and orders them, read and converted a few rows at a time.
import { fromFile } from '../io/elements.ts';
import type { Place } from '../io/stored_names.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { dtypeBytes } from '../runtime/safetensors_dtype.ts';
import { sizeOf } from '../runtime/shape.ts';
import { type Architecture, ropeTensors } from './architectures.ts';
import { bytesIn, type ExportType, encoded, ggufTypes, typeOf } from './gguf_elements.ts';
import type { GgufTensor } from './gguf_file.ts';

/** About so many bytes of a file are in memory at a time. */
const PIECE_BYTES = 2 ** 22;

/** Names in a layer, without the norms that stand in other places in other families. */
const IN_LAYER: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.qkv_proj': 'attn_qkv',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.gate_up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};
const OUTSIDE: Readonly<Record<string, string>> = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
};
const LAYER = /^model\.layers\.(\d+)\.(.+)$/;

/** A parameter's name in a GGUF file. Throws if it has none. */
export function ggufName(parameter: string, { layers }: Pick<DecoderConfig, 'layers'>): string {
  const [, stem = '', kind = ''] = /^(.+)\.(weight|bias)$/.exec(parameter) ?? [];
  const [, layer, inside = ''] = LAYER.exec(stem) ?? [];
  const norms = layers[0]!.norms;
  const ofNorms = new Map([
    [norms.attentionInput, 'attn_norm'],
    [norms.attentionOutput, 'post_attention_norm'],
    [norms.mlpInput, 'ffn_norm'],
    [norms.mlpOutput, 'post_ffw_norm'],
  ]);
  const name = layer === undefined ? OUTSIDE[stem] : (IN_LAYER[inside] ?? ofNorms.get(inside));
  if (!name) throw new Error(`export: llama.cpp has no name for the parameter '${parameter}'`);
  return layer === undefined ? `${name}.${kind}` : `blk.${layer}.${name}.${kind}`;
}

/** All tensors, in the order of the model's parameters. `places` says where each is stored, by the parameter's name. */
export function modelTensors(
  architecture: Architecture,
  config: DecoderConfig,
  parameters: Iterable<readonly [name: string, weight: { shape: readonly number[] }]>,
  places: ReadonlyMap<string, Place>,
  type: ExportType,
): GgufTensor[] {
  const shapes = new Map([...parameters].map(([name, { shape }]) => [name, shape]));
  if (architecture.head === 'required' && config.tieWordEmbeddings) {
    shapes.set('lm_head.weight', shapes.get('model.embed_tokens.weight')!);
  }
  const tensors = [...shapes].map(([name, shape]): GgufTensor => {
    const place = places.get(name) ?? places.get('model.embed_tokens.weight')!;
    const to = typeOf(shape, type);
    return {
      name: ggufName(name, config),
      shape,
      type: ggufTypes[to].tensor,
      bytes: bytesIn(to, sizeOf(shape)),
      pieces: () =>
        pieces(place, {
          shape,
          to,
          added: /norm\.weight$/.test(name) ? config.norm.offset : 0,
          headSize: headSizeOf(name, architecture, config),
        }),
    };
  });
  const factors = [...ropeTensors(config)].map(([name, values]): GgufTensor => {
    const bytes = encoded(values, 'f32');
    const { tensor } = ggufTypes.f32;
    return { name, shape: [values.length], type: tensor, bytes: bytes.length, pieces: () => once(bytes) };
  });
  return [...tensors, ...factors];
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Rows of a head, where a parameter's rows are in another order there; else 0. */
export function headSizeOf(name: string, { isInterleaved }: Architecture, { layers }: DecoderConfig): number {
  return isInterleaved && /\.self_attn\.[qk]_proj\./.test(name) ? layers[0]!.attention.headSize : 0;
}

interface Conversion {
  shape: readonly number[];
  to: ExportType;
  /** Added to each element. */
  added: number;
  /** Rows of a head, where rows d and d + D/2 of each head become rows 2d and 2d + 1; else 0. */
  headSize: number;
}

async function* pieces({ file, name }: Place, { shape, to, added, headSize }: Conversion): AsyncGenerator<Uint8Array> {
  const { dtype } = file.entries.get(name)!;
  const isMatrix = shape.length > 1;
  const [rows, columns] = isMatrix ? [shape[0]!, shape[1]!] : [shape[0]!, 1];
  const unit = headSize || (isMatrix ? 1 : rows);
  const units = Math.max(1, Math.floor(PIECE_BYTES / (unit * columns * 4)));
  const rowBytes = columns * dtypeBytes[dtype];
  for (let row = 0; row < rows; row += units * unit) {
    const end = Math.min(row + units * unit, rows);
    const read = fromFile(name, await file.readRange(name, row * rowBytes, end * rowBytes), dtype, 'float32');
    const values = new Float32Array(read.buffer, read.byteOffset, (end - row) * columns);
    if (added !== 0) for (let i = 0; i < values.length; i++) values[i]! += added;
    yield encoded(headSize ? inPairs(values, headSize, columns) : values, to);
  }
}

/** Rows of whole heads, with rows d and d + D/2 of each head side by side. */
export function inPairs(values: Float32Array, D: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  const rows = values.length / columns;
  for (let row = 0; row < rows; row++) {
    const [head, at] = [Math.floor(row / D), row % D];
    const from = head * D + (at % 2) * (D / 2) + Math.floor(at / 2);
    out.set(values.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return out;
}
