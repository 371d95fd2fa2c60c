// Angles of the rotary embedding, in f64: f32 drifts past 100K positions.
import type { RopeConfig } from './config.ts';

/** (D/2) inverse frequencies: the angle of pair d at position p is p times the d-th. Formulas as in HuggingFace transformers. */
export function inverseFrequencies(config: RopeConfig, D: number): Float64Array {
  return Float64Array.from({ length: D / 2 }, (_, d) => {
    const frequency = config.theta ** (-(2 * d) / D);
    switch (config.type) {
      case 'default':
        return frequency;
      case 'linear':
        return frequency / config.factor;
      case 'llama3': {
        // Long wavelengths are slowed by `factor`, short ones kept, those between blended (Llama 3.1).
        const { factor, lowFrequencyFactor, highFrequencyFactor, originalMaxPositions } = config;
        const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
        if (turns < lowFrequencyFactor) return frequency / factor;
        if (turns > highFrequencyFactor) return frequency;
        const kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
        return ((1 - kept) * frequency) / factor + kept * frequency;
      }
    }
  });
}
