// The memory of a training step as it goes: bytes by category, and the tensors that hold most of them.
import { nextToken } from '../objectives/next_token.ts';
import type { Objective } from '../objectives/objective.ts';
import { type Category, categories, type MemoryStatistics, type TimelineEvent } from '../runtime/memory/statistics.ts';
import { type SimulatedStep, simulateStep } from './simulate.ts';

/** Tensors of one category, dtype and shape. */
export interface TensorGroup {
  category: Category;
  /** 'bfloat16 (65536,4096)'. */
  tensors: string;
}

/** Live tensors of a group at a point. */
export interface LiveGroup {
  /** Index in `groups`. */
  group: number;
  count: number;
  bytes: number;
}

/** A moment of a step. */
export interface TimelinePoint {
  /** Allocations and releases of the step so far. */
  at: number;
  /** In use, in the order of `categories`. */
  bytes: number[];
  /** The groups that hold most, the largest first. */
  largest: LiveGroup[];
}

export interface StepTimeline {
  /** In their order; the first is the begin of the step, and one of them the peak. */
  points: TimelinePoint[];
  /** Index of the point with the most bytes. */
  peak: number;
  groups: TensorGroup[];
  /** Where the forward of each micro-batch begins and ends, as `at` of points. */
  forwards: { begin: number; end: number }[];
  /** Of the whole step, as `simulateStep` returns it. */
  memory: MemoryStatistics;
}

export interface TimelineOptions {
  /** Most points; of the moments between two the one with the most bytes is kept. @default 400 */
  maxPoints?: number;
  /** Most groups that a point names. @default 6 */
  maxGroups?: number;
}

/** Runs a step on `meta`, as `simulateStep` does, and returns how its memory goes. */
export function stepTimeline(
  step: SimulatedStep,
  { maxPoints = 400, maxGroups = 6 }: TimelineOptions = {},
): StepTimeline {
  const events: TimelineEvent[] = [];
  const forwards: StepTimeline['forwards'] = [];
  const objective = step.objective ?? nextToken();
  const marked: Objective = {
    count: (batch) => objective.count(batch),
    loss(...inputs) {
      const begin = events.length;
      const loss = objective.loss(...inputs);
      forwards.push({ begin, end: events.length });
      return loss;
    },
  };
  const memory = simulateStep({ ...step, objective: marked, timeline: events });
  const first = forwards[0]?.begin ?? 0;
  const kept = highest(events, first, maxPoints);
  const groups = new Groups();
  const points: TimelinePoint[] = [];
  let next = 0;
  for (const index of kept) {
    while (next <= index) groups.add(events[next++]!);
    points.push({ at: index + 1 - first, bytes: groups.bytes(), largest: groups.largest(maxGroups) });
  }
  const sums = points.map(({ bytes }) => bytes.reduce((sum, each) => sum + each, 0));
  return {
    points,
    peak: sums.indexOf(Math.max(...sums)),
    groups: groups.names,
    forwards: forwards.map(({ begin, end }) => ({ begin: begin - first, end: end - first })),
    memory,
  };
}

/** Indices of events: the one before `first`, and in each of `count` equal parts of the others the one with the most live bytes. */
function highest(events: readonly TimelineEvent[], first: number, count: number): number[] {
  const kept = first > 0 ? [first - 1] : [];
  const parts = Math.min(count - kept.length, events.length - first);
  for (let part = 0; part < parts; part++) {
    const [begin, end] = [part, part + 1].map((i) => first + Math.floor((i * (events.length - first)) / parts));
    let best = begin!;
    for (let i = begin!; i < end!; i++) if (events[i]!.liveBytes > events[best]!.liveBytes) best = i;
    kept.push(best);
  }
  return kept;
}

/** Live blocks by group. */
class Groups {
  readonly names: TensorGroup[] = [];
  readonly #indices = new Map<string, number>();
  readonly #live: { count: number; bytes: number }[] = [];
  /** The group of the block at an offset. */
  readonly #ofBlock = new Map<number, number>();

  add({ bytes, category, offset, content }: TimelineEvent): void {
    const group = bytes > 0 ? this.#group(category, content) : this.#ofBlock.get(offset)!;
    const live = this.#live[group]!;
    live.count += bytes > 0 ? 1 : -1;
    live.bytes += bytes;
    if (bytes > 0) this.#ofBlock.set(offset, group);
    else this.#ofBlock.delete(offset);
  }

  bytes(): number[] {
    const sums = Object.fromEntries(categories.map((category) => [category, 0])) as Record<Category, number>;
    for (const [i, { category }] of this.names.entries()) sums[category] += this.#live[i]!.bytes;
    return categories.map((category) => sums[category]);
  }

  largest(most: number): LiveGroup[] {
    const all = this.#live.map((live, group) => ({ group, ...live })).filter(({ count }) => count > 0);
    return all.sort((a, b) => b.bytes - a.bytes).slice(0, most);
  }

  #group(category: Category, content: TimelineEvent['content']): number {
    const shapes = content?.shapes.map((shape) => `(${shape})`).join(' + ');
    const tensors = content ? `${content.dtype} ${shapes}` : 'no tensor';
    const key = `${category} ${tensors}`;
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    const index = this.names.push({ category, tensors }) - 1;
    this.#indices.set(key, index);
    this.#live.push({ count: 0, bytes: 0 });
    return index;
  }
}
