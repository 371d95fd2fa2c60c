// What the planner chooses for a training step.

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
   */
  recompute: 'none' | 'attention' | 'layer';
}
