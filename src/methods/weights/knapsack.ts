import { ArgumentError } from "../../tensor/index.ts";

/** One way to represent a part of a model. */
export interface Choice {
  /** Size in bytes, a whole number. */
  readonly bytes: number;
  /** What it costs in quality; costs of different parts add up. */
  readonly cost: number;
}

/** A part of a model with the ways to represent it. */
export interface Item<C extends Choice = Choice> {
  readonly name: string;
  readonly choices: readonly C[];
}

/** A choice for every part, with the sums. */
export interface Selection<C extends Choice = Choice> {
  readonly bytes: number;
  readonly cost: number;
  readonly chosen: Readonly<Record<string, C>>;
}

/** A selection for the first items: the choice of the last of them, behind a selection for those before. */
interface Prefix<C extends Choice> {
  readonly bytes: number;
  readonly cost: number;
  readonly choice: C | null;
  readonly before: Prefix<C> | null;
}

/** Partial selections kept at most; beyond, sizes are told apart less finely. */
const MOST_KEPT = 4000;

/**
 * The best trade-offs of size against cost, smallest first: of no other selection are both smaller. Partial selections
 * that another beats in both are dropped item by item (Nemhauser and Ullmann 1969), which is exact; with more than
 * 4,000 left, the cheapest of each of as many equal steps in size is kept.
 * @throws ArgumentError where an item has no choice or a choice no sizes
 */
function frontier<C extends Choice>(items: readonly Item<C>[]): Prefix<C>[] {
  let kept: Prefix<C>[] = [{ bytes: 0, cost: 0, choice: null, before: null }];
  for (const { name, choices } of items) {
    if (choices.length === 0) throw new ArgumentError(`there is nothing to choose from for "${name}"`);
    for (const { bytes, cost } of choices)
      if (!Number.isSafeInteger(bytes) || bytes < 0 || !Number.isFinite(cost))
        throw new ArgumentError(`a choice for "${name}" has ${bytes} bytes and cost ${cost}`);
    const next = kept.flatMap((before) =>
      choices.map((choice) => ({
        bytes: before.bytes + choice.bytes,
        cost: before.cost + choice.cost,
        choice,
        before,
      })),
    );
    kept = thinned(undominated(next));
  }
  return kept;
}

function undominated<T extends Choice>(options: T[]): T[] {
  options.sort((a, b) => a.bytes - b.bytes || a.cost - b.cost);
  let cheapest = Infinity;
  return options.filter(({ cost }) => {
    if (cost >= cheapest) return false;
    cheapest = cost;
    return true;
  });
}

function thinned<T extends Choice>(options: T[]): T[] {
  if (options.length <= MOST_KEPT) return options;
  const [first, last] = [options[0]!.bytes, options.at(-1)!.bytes];
  const stepOf = ({ bytes }: T): number => Math.floor(((bytes - first) / (last - first)) * (MOST_KEPT - 1));
  // The smallest of all stays whatever happens, so that a tight budget is still met.
  return options.filter((option, i) => i === 0 || i === options.length - 1 || stepOf(options[i + 1]!) > stepOf(option));
}

function selectionOf<C extends Choice>(items: readonly Item<C>[], end: Prefix<C>): Selection<C> {
  const chosen: Record<string, C> = {};
  let at = end;
  for (let i = items.length - 1; i >= 0; i--) {
    chosen[items[i]!.name] = at.choice!;
    at = at.before!;
  }
  return { bytes: end.bytes, cost: end.cost, chosen };
}

/**
 * The choices, one for each item, of least cost that fit into `budget` bytes together.
 * @throws ArgumentError where even the smallest do not fit, with their size
 */
export function knapsack<C extends Choice>(items: readonly Item<C>[], budget: number): Selection<C> {
  const options = frontier(items);
  const best = options.findLast(({ bytes }) => bytes <= budget);
  if (!best) throw new ArgumentError(`${budget} bytes are too few: the smallest choices take ${options[0]!.bytes}`);
  return selectionOf(items, best);
}

/**
 * The smallest choices, one for each item, that cost no more than `limit` together.
 * @throws ArgumentError where even the best cost more
 */
export function smallest<C extends Choice>(items: readonly Item<C>[], limit: number): Selection<C> {
  const options = frontier(items);
  const best = options.find(({ cost }) => cost <= limit);
  if (!best) throw new ArgumentError(`a cost of ${limit} cannot be met: the best choices cost ${options.at(-1)!.cost}`);
  return selectionOf(items, best);
}
