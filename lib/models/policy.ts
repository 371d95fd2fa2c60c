// The policy of a training step, which the planner chooses.

/** What the backward recomputes; see `StepPolicy`. */
export const RECOMPUTE = ['none', 'attention', 'layer', 'segments'] as const;

/** How a step trades memory for operations. Results are the same under every policy, up to rounding. */
export interface StepPolicy {
  /** Rows of a chunk of the MLP; with N or more there is one chunk. */
  mlpChunkSize: number;
  /** Rows of a chunk of the head and loss. */
  lossChunkSize: number;
  /** What the MLP saves for its backward. */
  mlpSave: 'input' | 'gateUp';
  /**
   * 'none': saves everything that the backward needs.
   * 'attention': a layer saves its input, attention's output and, if a norm reads it, the MLP's output. It recomputes the rest.
   * 'layer': a layer saves only its input.
   * 'segments': only some layers save their inputs; the layers from one to the next are recomputed together.
   */
  recompute: (typeof RECOMPUTE)[number];
  /** Of 'segments': most inputs of layers, (N,C) each, that live at once; see segments.ts. @default as few as the layers need */
  slots?: number;
}
