// What kernels take besides tensors: an object for each struct of C++, with the names of its fields.

/** The part of a tensor that kernels see; see tensor.ts. */
export interface KernelTensor {
  readonly device: { readonly id: number | null };
  readonly view: Float64Array;
}

export type OptionalTensor = KernelTensor | null;

/** See native/ops/dropout.h. */
export interface Dropout {
  probability: number;
  seed: number;
  step: number;
  rows?: SequenceRows | null;
}
export interface SequenceRows {
  T: number;
  begin: number;
  count: number;
}
/** See native/ops/low_rank.h. */
export interface LowRank {
  a: KernelTensor;
  b: KernelTensor;
  da: OptionalTensor;
  db: OptionalTensor;
  scale: number;
  op: number;
}

/** See native/ops/chunked_mlp.h. */
export interface MlpWeights {
  gate: KernelTensor;
  up: KernelTensor;
  down: KernelTensor;
}
export interface MlpAdapters {
  gate: LowRank | null;
  up: LowRank | null;
  down: LowRank | null;
  scratch: OptionalTensor;
  dropout: Dropout;
}
export interface WeightGradient {
  gradient: KernelTensor;
  overwrite: boolean;
}
export interface MlpGradients {
  dx: OptionalTensor;
  dgate: WeightGradient | null;
  dup: WeightGradient | null;
  ddown: WeightGradient | null;
}
export interface GateUp {
  memory: KernelTensor;
  isKept: boolean;
}

/** See native/ops/chunked_experts.h. */
export interface ExpertWeights {
  router: KernelTensor;
  gateUp: KernelTensor;
  down: KernelTensor;
}
export interface ExpertGradients {
  dx: OptionalTensor;
  drouter: WeightGradient | null;
  dgateUp: WeightGradient | null;
  ddown: WeightGradient | null;
}
export interface ExpertScratch {
  logits: KernelTensor;
  probabilities: KernelTensor;
  weights: KernelTensor;
  experts: KernelTensor;
  offsets: KernelTensor;
  order: KernelTensor;
  places: KernelTensor;
  rows: KernelTensor;
  gateUp: KernelTensor;
  dweights: OptionalTensor;
  drows: OptionalTensor;
  dh: OptionalTensor;
}

/** See native/ops/nf4.h. */
export interface Nf4 {
  codes: KernelTensor;
  absmax: KernelTensor;
  scales: KernelTensor;
  offset: KernelTensor;
}

/** See native/ops/attention.h. */
export interface AttentionInputs {
  q: KernelTensor;
  k: KernelTensor;
  v: KernelTensor;
  documentStart: OptionalTensor;
}
export interface AttentionGradients {
  dq: KernelTensor;
  dk: KernelTensor;
  dv: KernelTensor;
}
export interface AttentionOptions {
  T: number;
  D: number;
  scale: number;
  window: number;
  softcap: number;
}

/** See native/ops/cross_entropy.h. */
export interface LossTargets {
  ids: KernelTensor;
  weights: OptionalTensor;
}
export interface TokenOutputs {
  losses: KernelTensor;
  lse: OptionalTensor;
  logProbability: OptionalTensor;
  entropy: OptionalTensor;
  correct: OptionalTensor;
}
export interface LossOptions {
  ignoreIndex: number;
  labelSmoothing: number;
  zLoss: number;
  softcap: number;
}
/** See native/ops/chunked_cross_entropy.h. */
export interface Head {
  weight: KernelTensor;
  lowRank: { low: KernelTensor; weight: KernelTensor } | null;
}
export interface HeadGradients {
  scale: number;
  dhidden: OptionalTensor;
  dweight: OptionalTensor;
  dlow: OptionalTensor;
  dlowWeight: OptionalTensor;
}

/** See native/ops/rope.h. */
export interface RopeOptions {
  T: number;
  D: number;
  scale: number;
  isInterleaved: boolean;
  isInverse: boolean;
  growth: number;
  growthPositions: number;
}

/** See native/ops/adamw.h. */
export interface AdamwStates {
  m: KernelTensor;
  v: KernelTensor;
  mScales: OptionalTensor;
  vScales: OptionalTensor;
}
export interface AdamwSettings {
  learningRate: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  seed: number;
  op: number;
  first: number;
}
