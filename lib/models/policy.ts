// What the planner chooses for a training step.

/** What the backward computes again. */
export const RECOMPUTE = ['none', 'attention', 'layer', 'segments'] as const;

/** How a step trades memory for operations. Numbers are the same under every policy, to rounding. */
export interface StepPolicy {
  /** Rows of a chunk of the MLP; N or more: not chunked. */
  mlpChunkSize: number;
  /** Rows of a chunk of the head and loss. */
  lossChunkSize: number;
  /** What the MLP keeps for its backward. */
  mlpSave: 'input' | 'gateUp';
  /**
   * 'none': everything that the backward needs is saved.
   * 'attention': a layer keeps its input and attention's output, and the MLP's where a norm follows it; the rest is computed again.
   * 'layer': a layer keeps its input alone.
   * 'segments': some layers keep their inputs; the layers up to the next such are computed again together.
   */
  recompute: (typeof RECOMPUTE)[number];
  /** Of 'segments': most inputs of layers, (N,C) each, that live at once; see segments.ts. @default as few as the layers need */
  slots?: number;
}
