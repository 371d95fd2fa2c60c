// The decoder written out in f64, by the formulas of SmolLM3 and Granite in transformers and from config.json alone: nothing of lib/ is used.

/** Fields of config.json that the formulas read; each has to be there where its family has it. */
export interface PlainSource {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  vocab_size: number;
  rope_theta: number;
  rms_norm_eps: number;
  no_rope_layers?: readonly number[];
  /** Of layers without rotary positions. */
  sliding_window?: number;
  embedding_multiplier?: number;
  attention_multiplier?: number;
  residual_multiplier?: number;
  logits_scaling?: number;
}

type Row = number[];
type Weights = ReadonlyMap<string, ArrayLike<number>>;

/** Logits of one sequence, a row for each token. Biases are added where there are any; without lm_head.weight the head is the embedding. */
export function plainLogits(source: PlainSource, weights: Weights, ids: ArrayLike<number>): Row[] {
  const { hidden_size: C, num_hidden_layers: L, vocab_size: V, rms_norm_eps: eps } = source;
  const residual = source.residual_multiplier ?? 1;
  const embedding = weights.get('model.embed_tokens.weight')!;
  const scaled = (x: Row, factor: number) => x.map((value) => value * factor);
  const sum = (x: Row, y: Row) => x.map((value, c) => value + y[c]!);
  const normed = (x: Row, name: string) => {
    const mean = x.reduce((total, value) => total + value * value, 0) / C;
    return x.map((value, c) => (value / Math.sqrt(mean + eps)) * weights.get(`${name}.weight`)![c]!);
  };
  let x = Array.from(ids, (id) =>
    Array.from({ length: C }, (_, c) => embedding[id * C + c]! * (source.embedding_multiplier ?? 1)),
  );
  for (let layer = 0; layer < L; layer++) {
    const path = `model.layers.${layer}`;
    const inputs = x.map((row) => normed(row, `${path}.input_layernorm`));
    const attended = plainAttention(source, weights, layer, inputs);
    x = x.map((row, t) => sum(row, scaled(attended[t]!, residual)));
    x = x.map((row) => {
      const input = normed(row, `${path}.post_attention_layernorm`);
      const gate = product(weights, `${path}.mlp.gate_proj`, input);
      const up = product(weights, `${path}.mlp.up_proj`, input);
      const between = gate.map((value, f) => (value / (1 + Math.exp(-value))) * up[f]!);
      return sum(row, scaled(product(weights, `${path}.mlp.down_proj`, between), residual));
    });
  }
  const head = weights.get('lm_head.weight') ?? embedding;
  return x.map((row) => {
    const hidden = normed(row, 'model.norm');
    const logits = Array.from({ length: V }, (_, v) => hidden.reduce((t, value, c) => t + value * head[v * C + c]!, 0));
    return logits.map((value) => value / (source.logits_scaling ?? 1));
  });
}

/** Mean of -log softmax(logits)[target]. */
export function plainLoss(logits: readonly Row[], targets: ArrayLike<number>): number {
  const losses = logits.map((row, t) => {
    const max = Math.max(...row);
    return max + Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0)) - row[targets[t]!]!;
  });
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

function plainAttention(source: PlainSource, weights: Weights, layer: number, inputs: Row[]): Row[] {
  const { num_attention_heads: H, num_key_value_heads: G, hidden_size: C } = source;
  const D = C / H;
  const path = `model.layers.${layer}.self_attn`;
  const isRotated = (source.no_rope_layers?.[layer] ?? 1) === 1;
  const window = isRotated ? Infinity : (source.sliding_window ?? Infinity);
  const scale = source.attention_multiplier ?? 1 / Math.sqrt(D);
  const heads = (row: Row) => Array.from({ length: row.length / D }, (_, h) => row.slice(h * D, (h + 1) * D));
  // Pair d is (head[d], head[d + D/2]), turned by t · theta^(-2d/D).
  const rotated = (head: Row, t: number) =>
    head.map((value, d) => {
      const angle = t * source.rope_theta ** (-(2 * (d % (D / 2))) / D);
      const other = d < D / 2 ? -head[d + D / 2]! : head[d - D / 2]!;
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  const turned = (name: string) =>
    inputs.map((row, t) =>
      heads(product(weights, `${path}.${name}`, row)).map((head) => (isRotated ? rotated(head, t) : head)),
    );
  const [q, k] = [turned('q_proj'), turned('k_proj')];
  const v = inputs.map((row) => heads(product(weights, `${path}.v_proj`, row)));
  return inputs.map((_, t) => {
    const out = q[t]!.flatMap((query, h) => {
      const g = Math.floor(h / (H / G));
      const seen = Array.from({ length: t + 1 }, (_, s) => s).filter((s) => t - s < window);
      const exps = seen.map((s) => Math.exp(scale * query.reduce((sum, value, d) => sum + value * k[s]![g]![d]!, 0)));
      const total = exps.reduce((sum, value) => sum + value, 0);
      return query.map((_, d) => seen.reduce((sum, s, i) => sum + (exps[i]! / total) * v[s]![g]![d]!, 0));
    });
    return product(weights, `${path}.o_proj`, out);
  });
}

/** x·weightᵀ + bias. */
function product(weights: Weights, path: string, x: Row): Row {
  const weight = weights.get(`${path}.weight`)!;
  const bias = weights.get(`${path}.bias`);
  const I = x.length;
  return Array.from({ length: weight.length / I }, (_, o) =>
    x.reduce((sum, value, i) => sum + value * weight[o * I + i]!, bias?.[o] ?? 0),
  );
}
