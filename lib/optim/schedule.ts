// Learning rate by step: linear warm-up, then constant, linear or cosine decay.

export interface ScheduleOptions {
  type: 'cosine' | 'linear' | 'constant';
  /** Rate at the end of the warm-up. */
  learningRate: number;
  /** What the decay approaches (cosine, linear); the step after the last would have it. */
  minLearningRate: number;
  /** Steps of the warm-up; step s of it has the rate (s + 1) / warmupSteps. */
  warmupSteps: number;
  /** Steps of the run. */
  numSteps: number;
}

/** The rate of step `step`, counted from 0. Of N steps with W of warm-up, a step's progress in the decay is (step − W) / (N − W). */
export function learningRateAt(step: number, options: ScheduleOptions): number {
  const { type, learningRate, minLearningRate, warmupSteps, numSteps } = options;
  if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, numSteps - warmupSteps));
  switch (type) {
    case 'constant':
      return learningRate;
    case 'linear':
      return learningRate + (minLearningRate - learningRate) * progress;
    case 'cosine':
      return minLearningRate + (learningRate - minLearningRate) * 0.5 * (1 + Math.cos(Math.PI * progress));
  }
}

/**
 * What is wrong with a warm-up that leaves at most one step for the decay; null: nothing.
 * @throws RangeError where the run ends before its warm-up
 */
export function warmupProblem({ type, warmupSteps, numSteps, learningRate }: ScheduleOptions): string | null {
  if (warmupSteps > numSteps) {
    throw new RangeError(
      `schedule.warmupSteps ${warmupSteps} is more than the run's ${numSteps} steps: ` +
        `the learning rate would end at ${(learningRate * numSteps) / warmupSteps} and never reach ${learningRate}`,
    );
  }
  if (warmupSteps === 0 || type === 'constant' || warmupSteps < numSteps - 1) return null;
  return `schedule.warmupSteps ${warmupSteps} of ${numSteps} steps leaves no step for the decay, which is ${type}`;
}
