import { ArgumentError, type Rng } from "../../tensor/index.ts";
import type { GaussianProcess } from "./gaussian-process.ts";
import { hypervolumeImprovement, type Objectives, paretoFront } from "./pareto.ts";

/** A space of discrete things to choose from. */
export interface Choices<X> {
  /** Something from anywhere in the space. */
  random(rng: Rng): X;
  /** What differs from `x` in one small step. */
  neighbours(x: X): readonly X[];
  /** The same text for the same thing only. */
  key(x: X): string;
}

export interface ImprovementOptions<X> {
  readonly rng: Rng;
  readonly choices: Choices<X>;
  /** What was evaluated, in the order that the belief was fitted on; not chosen again. */
  readonly evaluated: readonly X[];
  /** Belief about the objective that costs much to evaluate. */
  readonly belief: GaussianProcess<X>;
  /** The other objective, which is known of everything. */
  known(x: X): number;
  /** Upper ends of the known objective and of the other: what is worse does not count. */
  readonly reference: Objectives;
  /** How many to choose. */
  readonly batch: number;
  /** Functions drawn from the belief. Default 128. */
  readonly draws?: number;
  /** Things that the local search starts from. Default 256 random ones. */
  readonly starts?: number;
}

/** Of the starts, those that the local search goes on from. */
const CLIMBS = 6;

/**
 * The next things to evaluate, by expected improvement of the hypervolume under noise (NEHVI, Daulton et al. 2021), both
 * objectives to be small: functions are drawn jointly from the belief at all that was evaluated and at the candidate, and the
 * hypervolume that the candidate adds to each function's own front is averaged. The space is searched by going from the best
 * of random starts, and of neighbours of the front, to better neighbours. Of a batch, each further one is chosen with the
 * draws' values at those before it.
 */
export async function mostPromising<X>(options: ImprovementOptions<X>): Promise<X[]> {
  const { rng, choices, evaluated, belief, known, reference, batch, draws: count = 128, starts = 256 } = options;
  if (!Number.isInteger(batch) || batch < 1)
    throw new ArgumentError(`a batch has at least one candidate, not ${batch}`);
  const normal = Float64Array.from({ length: count }, () => rng.normal());
  let draws = await belief.draw(count, rng);
  const points = [...evaluated];
  const chosen: X[] = [];
  const taken = new Set(evaluated.map((x) => choices.key(x)));
  while (chosen.length < batch) {
    const places = points.map(known);
    const fronts = draws.values.map((values) =>
      paretoFront(
        values.map((value, i): Objectives => [places[i]!, value]),
        ([x]) => x,
        ([, y]) => y,
      ),
    );
    const gains = new Map<string, number>();
    const gain = (x: X): number => {
      const key = choices.key(x);
      let found = gains.get(key);
      if (found === undefined) {
        const place = known(x);
        const values = draws.at(x, normal);
        const sum = fronts.reduce(
          (total, front, i) => total + hypervolumeImprovement(front, [place, values[i]!], reference),
          0,
        );
        found = taken.has(key) ? -1 : sum / count;
        gains.set(key, found);
      }
      return found;
    };
    const best = climb(startsOf(options, points, starts), gain, choices);
    // A space that is used up has nothing more to choose.
    if (best === undefined || gain(best) < 0) break;
    chosen.push(best);
    taken.add(choices.key(best));
    points.push(best);
    draws = await draws.and(best, normal);
  }
  return chosen;
}

/** Random things, and the neighbours of what is best so far by the belief's means. */
function startsOf<X>({ rng, choices, belief, known }: ImprovementOptions<X>, points: readonly X[], count: number): X[] {
  const front = paretoFront(points, known, (x) => belief.predict(x).mean);
  const near = front.flatMap((x) => choices.neighbours(x));
  return [...near, ...Array.from({ length: count }, () => choices.random(rng))];
}

/** The best that steps to better neighbours lead to from the best starts. */
function climb<X>(starts: readonly X[], gain: (x: X) => number, choices: Choices<X>): X | undefined {
  const unique = [...new Map(starts.map((x) => [choices.key(x), x])).values()];
  const ends = unique
    .map((x) => ({ x, value: gain(x) }))
    .sort((a, b) => b.value - a.value)
    .slice(0, CLIMBS)
    .map((start) => {
      let at = start;
      for (;;) {
        const better = choices
          .neighbours(at.x)
          .map((x) => ({ x, value: gain(x) }))
          .reduce((a, b) => (b.value > a.value ? b : a), at);
        if (better === at) return at;
        at = better;
      }
    });
  return ends.sort((a, b) => b.value - a.value)[0]?.x;
}
