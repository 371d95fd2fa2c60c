// The policy of a training step, which the planner chooses.

/** What the backward recomputes; see `StepPolicy`. */
export const RECOMPUTE = ['none', 'attention', 'attentionSegments', 'layer', 'segments'] as const;

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
   * 'attentionSegments': every layer saves attention's output, but only some save their inputs; the inputs from one to the next are recomputed.
   * 'layer': a layer saves only its input.
   * 'segments': only some layers save their inputs; the layers from one to the next are recomputed together.
   */
  recompute: (typeof RECOMPUTE)[number];
  /**
   * With 'segments' and 'attentionSegments': number of layers that save their inputs (N,C). With 'segments' no more inputs live at once. With
   * 'attentionSegments' more may, in place of attention outputs that are no longer needed; see segments.ts. @default the fewest possible
   */
  slots?: number;
  /**
   * With 'segments': each layer of a segment but its last keeps attention's output (N,H·D) too, from when the segment is computed again until
   * its own backward, which then does not run attention once more. It counts as an input (N,C), so that as many slots serve fewer layers.
   * @default false
   */
  keepAttention?: boolean;
  /**
   * With 'attention', 'layer' and 'segments': how many of the inputs (N,C) that the forward saves, the first ones, are copied to host memory
   * beside commands, and come back one layer or segment ahead of their backward. The device then holds two of them at once. Needs the
   * device's `hostMemoryLimit`. @default 0
   */
  offloadedInputs?: number;
  /**
   * Groups of heads that the backward takes attention in, one after the other: queries, keys, values and their gradients exist for one group
   * at a time. A divisor of the number of key/value heads; 1 where queries are normalised over all heads together. @default 1
   */
  attentionHeadGroups?: number;
}
