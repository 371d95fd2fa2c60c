// Learning rate by step: linear warm-up, then constant, linear or cosine decay.

export interface ScheduleOptions {
  type: 'cosine' | 'linear' | 'constant';
  /** Rate at the end of the warm-up. */
  learningRate: number;
  /** Rate at the last step (cosine, linear). */
  minLearningRate: number;
  /** Steps of the warm-up; step s of it has the rate (s + 1) / warmupSteps. */
  warmupSteps: number;
  /** Steps of the run. */
  numSteps: number;
}

/** The rate of step `step`, counted from 0. */
export function learningRateAt(step: number, options: ScheduleOptions): number {
  const { type, learningRate, minLearningRate, warmupSteps, numSteps } = options;
  if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, numSteps - 1 - warmupSteps));
  switch (type) {
    case 'constant':
      return learningRate;
    case 'linear':
      return learningRate + (minLearningRate - learningRate) * progress;
    case 'cosine':
      return minLearningRate + (learningRate - minLearningRate) * 0.5 * (1 + Math.cos(Math.PI * progress));
  }
}
