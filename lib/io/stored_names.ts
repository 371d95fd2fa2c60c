// Names of parameters in files: HuggingFace's, with or without 'model.' in front. Also knows which other tensors files may hold.
import { briefName } from '../brief.ts';
import type { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { QuantizedWeight } from '../ops/quantized_weight.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { dtypeBytes, type SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import { readNf4, requireNf4 } from './bitsandbytes.ts';
import { dtypeFor, fileDtypes, toFloat64 } from './elements.ts';
import { type SafetensorsEntry, SafetensorsError, type SafetensorsFile } from './safetensors.ts';

const PREFIX = 'model.';
const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';
const NORM = 'model.norm.weight';
/** Tables that old checkpoints store but models compute themselves. */
const BUFFER = /(^|\.)rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)$/;
/** Suffixes that quantisers add to a weight's name. */
const QUANTISED =
  /\.(qweight|qzeros|scales|g_idx|weight_packed|weight_scale(_inv|_2)?|input_scale|weight\.(absmax|quant_map|nested_absmax|quant_state\..+)|SCB|weight_format)$/;
/** Number of elements compared at a time. */
const PIECE = 2 ** 21;
const WIDTHS: readonly Dtype[] = ['bfloat16', 'float32', 'float64'];

/** How a file names a parameter. */
type Naming = (parameter: string) => string;

const replaced =
  (prefix: string, head = HEAD): Naming =>
  (parameter) =>
    parameter.startsWith(PREFIX) ? prefix + parameter.slice(PREFIX.length) : parameter === HEAD ? head : parameter;

/** Of text parts: since transformers 5, before, and without head. */
const TEXT_NAMINGS = [
  replaced('model.language_model.'),
  replaced('language_model.model.', 'language_model.lm_head.weight'),
  replaced('language_model.'),
];

/** The file and name of a stored tensor. */
export interface Place {
  file: SafetensorsFile;
  /** Name in the file. */
  name: string;
}

export class StoredNames {
  readonly folder: string;
  readonly #files: ReadonlyMap<string, SafetensorsFile>;
  /** Whether a base model was saved, by AutoModel: its names lack 'model.'. */
  readonly #isBase: boolean;
  /** Whether the files hold a larger model, of which this is the text part. */
  readonly #isPart: boolean;
  readonly #naming: Naming;
  /** Whether the head is tied; the shared tensor may then be stored under either name. */
  readonly #isTied: boolean;
  /** Whether projections are stored in 4 bits. */
  readonly isQuantized: boolean;

  /** @param config as config.json says it */
  constructor(folder: string, files: ReadonlyMap<string, SafetensorsFile>, config: DecoderConfig) {
    this.isQuantized = config.quantization !== null;
    this.folder = folder;
    this.#files = files;
    this.#isTied = config.tieWordEmbeddings;
    this.#isPart = config.isTextPart;
    this.#isBase = !config.isTextPart && !files.has(EMBEDDING) && files.has(EMBEDDING.slice(PREFIX.length));
    const fits = (naming: Naming) => files.has(naming(NORM));
    if (config.isTextPart) this.#naming = TEXT_NAMINGS.find(fits) ?? TEXT_NAMINGS[0]!;
    else this.#naming = this.#isBase ? replaced('') : (parameter) => parameter;
  }

  /** The name that a parameter has in such files; with 'model.' where a base model's lack it, since a head needs it. */
  nameOf(parameter: string): string {
    return this.#isBase ? parameter : this.#naming(parameter);
  }

  /** Tensors of other parts of a larger model. */
  carried(): Place[] {
    return [...this.#files].filter(([name]) => !this.#isOwn(name)).map(([name, file]) => ({ name, file }));
  }

  /** Whether a tensor belongs to the text part. */
  #isOwn(name: string): boolean {
    return !this.#isPart || name === this.#naming(HEAD) || name.startsWith(this.#naming(PREFIX));
  }

  /** Where a parameter is stored; null if it is not. */
  place(parameter: string): Place | null {
    const name = this.#naming(parameter);
    const file = this.#files.get(name);
    if (file) return { file, name };
    return parameter === EMBEDDING && this.#isTied ? this.place(HEAD) : null;
  }

  /** The narrowest dtype that holds the values of every stored matrix. */
  widestDtype(): Dtype {
    if (!this.place(EMBEDDING)) throw this.#missing(EMBEDDING);
    let widest = 0;
    for (const [name, file] of this.#files) {
      const { dtype, shape } = file.entries.get(name)!;
      if (shape.length < 2 || BUFFER.test(name) || !this.#isOwn(name)) continue;
      if (this.isQuantized && dtype === 'U8') continue;
      widest = Math.max(widest, WIDTHS.indexOf(weightDtype(file, name, dtype)));
    }
    return WIDTHS[widest]!;
  }

  /** Where each parameter is stored, and a tied head if it is. Throws if a tensor is missing, has another shape, or is unknown. */
  match(model: Decoder): Map<string, Place> {
    const places = new Map<string, Place>();
    const parts: string[] = [];
    for (const [parameter, weight] of model.weights()) {
      const { shape } = weight;
      const place = this.place(parameter);
      if (!place) throw this.#missing(parameter);
      const { file, name } = place;
      if (this.isQuantized && weight instanceof QuantizedWeight) {
        parts.push(...requireNf4(this.#files, name, shape));
        places.set(parameter, place);
        continue;
      }
      const entry = file.entries.get(name)!;
      if (entry.shape.join() !== shape.join()) {
        throw new SafetensorsError(`${file.path}: '${name}' is (${entry.shape}), the model's is (${shape})`);
      }
      weightDtype(file, name, entry.dtype);
      places.set(parameter, place);
    }
    for (const name of model.constants().keys()) places.set(name, this.#constant(name));
    const head = this.place(HEAD);
    if (head && this.#isTied && head.name !== places.get(EMBEDDING)!.name) places.set(HEAD, head);
    const known = new Set([...parts, ...[...places.values()].map(({ name }) => name)]);
    for (const [name, file] of this.#files) {
      if (!known.has(name) && !BUFFER.test(name) && this.#isOwn(name)) throw this.#leftOver(file, name);
    }
    return places;
  }

  #constant(constant: string): Place {
    const place = this.place(constant);
    if (!place) throw this.#missing(constant);
    const { dtype, shape } = place.file.entries.get(place.name)!;
    if (shape.join() !== '1')
      throw new SafetensorsError(`${place.file.path}: '${place.name}' is (${shape}), must be (1)`);
    weightDtype(place.file, place.name, dtype);
    return place;
  }

  /** Reads a weight that the files hold in 4 bits. */
  async readQuantized(weight: QuantizedWeight, { name }: Place): Promise<void> {
    await readNf4(this.#files, name, weight);
  }

  /** Names and dtypes of a model's parameters in the files, for saving; of what is in 4 bits there, the model's dtype. */
  stored(model: Decoder): Map<string, { name: string; dtype: SafetensorsDtype }> {
    return new Map(
      [...this.match(model)].map(([parameter, { file, name }]) => {
        const { dtype } = file.entries.get(name)!;
        return [parameter, { name, dtype: dtype === 'U8' ? fileDtypes[model.dtype] : dtype }];
      }),
    );
  }

  #missing(parameter: string): SafetensorsError {
    const quantised = [...this.#files].find(([name]) => QUANTISED.test(name));
    if (quantised) return this.#leftOver(quantised[1], quantised[0]);
    let why = '';
    if (parameter === HEAD && this.#isBase)
      why = ': a base model without head was saved here; save it as AutoModelForCausalLM';
    else if (parameter === HEAD) why = ', and config.json does not say tie_word_embeddings';
    return new SafetensorsError(`${this.folder}: parameter '${parameter}' is in no file${why}`);
  }

  #leftOver({ path }: SafetensorsFile, name: string): SafetensorsError {
    let why = '';
    if (QUANTISED.test(name))
      why = ': the weights are quantised, which is not read; take the model that they were made from';
    else if (/\.lora_[AB]\./.test(name)) why = ': it belongs to an adapter; save the model without it, or merged';
    return new SafetensorsError(`${path}: the model has no parameter '${briefName(name)}'${why}`);
  }
}

/** Throws for integers and for dtypes narrower than half precision. */
function weightDtype({ path }: SafetensorsFile, name: string, dtype: SafetensorsDtype): Dtype {
  const found = dtypeFor(dtype);
  if (found) return found;
  const what = dtypeBytes[dtype] === 1 ? ': the weights are quantised, which is not read' : '';
  throw new SafetensorsError(`${path}: '${name}' has dtype ${dtype}, which is not supported for weights${what}`);
}

/** Whether the file has a head that differs from the embedding, although the config ties them. */
export async function isOwnHead(config: DecoderConfig, names: StoredNames): Promise<boolean> {
  const [embedding, head] = [names.place(EMBEDDING), names.place(HEAD)];
  if (!config.tieWordEmbeddings || !embedding || !head || embedding.name === head.name) return false;
  const [a, b] = [embedding, head].map(({ file, name }) => file.entries.get(name)!) as [
    SafetensorsEntry,
    SafetensorsEntry,
  ];
  if (a.shape.join() !== b.shape.join()) return true;
  const size = a.shape.reduce((product, length) => product * length, 1);
  for (let begin = 0; begin < size; begin += PIECE) {
    const end = Math.min(begin + PIECE, size);
    const read = ({ file, name }: Place, { dtype }: SafetensorsEntry) =>
      file.readRange(name, begin * dtypeBytes[dtype], end * dtypeBytes[dtype]);
    const [left, right] = [await read(embedding, a), await read(head, b)];
    if (a.dtype === b.dtype ? Buffer.compare(left, right) !== 0 : !hasEqualValues(left, a.dtype, right, b.dtype))
      return true;
  }
  return false;
}

function hasEqualValues(a: Uint8Array, aDtype: SafetensorsDtype, b: Uint8Array, bDtype: SafetensorsDtype): boolean {
  const [left, right] = [toFloat64(HEAD, a, aDtype), toFloat64(HEAD, b, bDtype)];
  return left.every((value, i) => Object.is(value, right[i]));
}
