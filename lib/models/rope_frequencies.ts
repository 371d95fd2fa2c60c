// Frequencies of the rotary embedding in f64, since f32 angles drift past 100K positions. Formulas as in HuggingFace transformers.
import type { RopeConfig } from './rope_config.ts';

/** (D/2,) inverse frequencies: the angle of pair d at position p is p times the d-th. T: sequence length, for 'dynamic' and 'longrope' only. */
export function inverseFrequencies(config: RopeConfig, D: number, T: number): Float64Array {
  const frequency = frequencyOf(config, D, T);
  return Float64Array.from({ length: D / 2 }, (_, d) => frequency(d));
}

function frequencyOf(config: RopeConfig, D: number, T: number): (d: number) => number {
  const { theta } = config;
  const plain = (d: number) => theta ** (-(2 * d) / D);
  switch (config.type) {
    case 'default':
      return plain;
    case 'linear':
      return (d) => plain(d) / config.factor;
    case 'dynamic': {
      // Beyond maxPositions, the base grows with the length (NTK-aware scaling).
      const { factor, maxPositions, alpha = 1 } = config;
      const length = Math.max(T, maxPositions);
      const growth = T > maxPositions ? (factor * length) / maxPositions - (factor - 1) : alpha;
      const base = theta * growth ** (D / (D - 2));
      return (d) => base ** (-(2 * d) / D);
    }
    case 'longrope': {
      const { shortFactors, longFactors, originalMaxPositions } = config;
      const factors = T > originalMaxPositions ? longFactors : shortFactors;
      return (d) => plain(d) / factors[d]!;
    }
    case 'proportional':
      return (d) => (d < config.rotated ? plain(d) / config.factor : 0);
    case 'llama3': {
      // Low frequencies are divided by `factor`, high ones kept, and those between blended (Llama 3.1).
      const { factor, lowFrequencyFactor, highFrequencyFactor, originalMaxPositions } = config;
      return (d) => {
        const turns = (originalMaxPositions * plain(d)) / (2 * Math.PI);
        if (turns < lowFrequencyFactor) return plain(d) / factor;
        if (turns > highFrequencyFactor) return plain(d);
        const kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
        return ((1 - kept) * plain(d)) / factor + kept * plain(d);
      };
    }
    case 'yarn': {
      // Pairs that rotate more than betaFast times over the original length are kept; frequencies of pairs that rotate less than betaSlow
      // times are divided by `factor` (Peng et al. 2023, arXiv 2309.00071).
      const { factor, originalMaxPositions, betaFast, betaSlow, truncate } = config;
      const pairOf = (turns: number) =>
        (D * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
      const bounds = [pairOf(betaFast), pairOf(betaSlow)] as const;
      const low = Math.max(truncate ? Math.floor(bounds[0]) : bounds[0], 0);
      const high = Math.min(truncate ? Math.ceil(bounds[1]) : bounds[1], D - 1);
      const width = high === low ? 0.001 : high - low;
      return (d) => {
        const slowed = Math.min(Math.max((d - low) / width, 0), 1);
        return (plain(d) / factor) * slowed + plain(d) * (1 - slowed);
      };
    }
  }
}
