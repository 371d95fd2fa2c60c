// Learning rate of each step: linear warm-up, then constant, or linear or cosine decay.

export interface ScheduleOptions {
  type: 'cosine' | 'linear' | 'constant';
  /** Learning rate at the end of the warm-up. */
  learningRate: number;
  /** Learning rate that linear and cosine decay approach; the step after the last one would have it. */
  minLearningRate: number;
  /** Number of warm-up steps; step s has the share (s + 1) / warmupSteps of learningRate. */
  warmupSteps: number;
  /** Number of steps of the run. */
  numSteps: number;
}

/** Learning rate of step `step`, counted from 0. With N steps and W warm-up steps, the decay's progress is (step − W) / (N − W). */
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
 * Returns a warning if the warm-up leaves at most one step for the decay, else null.
 * @throws RangeError if the run would end before its warm-up
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
