import { ArgumentError, type Tensor } from "../tensor/index.ts";

/** What happens at a named point: gets the tensor there, returns the one to go on with. */
export type Intervention = (x: Tensor, name: string) => Tensor;

/** What to do at which points: by name, or decided for each name that is passed. */
export type Points = Readonly<Record<string, Intervention>> | ((name: string) => Intervention | undefined);

type Finder = (name: string) => Intervention | undefined;

const active: Finder[] = [];

/**
 * A named point of a forward pass. Outside of `withPoints` it is the tensor itself; inside, whatever is attached to
 * the name sees it and may replace it. Inner attachments act before outer ones.
 */
export function at(name: string, x: Tensor): Tensor {
  return active.reduceRight((value, find) => find(name)?.(value, name) ?? value, x);
}

/**
 * Runs `forward` with interventions attached to its named points.
 * @throws ArgumentError when a name in a record is never passed: a misspelt point would otherwise do nothing.
 */
export function withPoints<R>(points: Points, forward: () => R): R {
  const passed = new Set<string>();
  const find: Finder =
    typeof points === "function"
      ? points
      : (name) => {
          passed.add(name);
          return Object.hasOwn(points, name) ? points[name] : undefined;
        };
  active.push(find);
  let result: R;
  try {
    result = forward();
  } finally {
    active.pop();
  }
  const missed = typeof points === "function" ? undefined : Object.keys(points).find((name) => !passed.has(name));
  if (missed !== undefined)
    throw new ArgumentError(`the forward pass has no point "${missed}"; it passed ${[...passed].join(", ") || "none"}`);
  return result;
}

/** Runs `forward` and returns its result with the tensors seen at the points that `wanted` accepts, by name. */
export function capture<R>(
  wanted: (name: string) => boolean,
  forward: () => R,
): { result: R; captured: Record<string, Tensor> } {
  const captured: Record<string, Tensor> = {};
  const keep: Intervention = (x, name) => {
    captured[name] = x;
    return x;
  };
  const result = withPoints((name) => (wanted(name) ? keep : undefined), forward);
  return { result, captured };
}
