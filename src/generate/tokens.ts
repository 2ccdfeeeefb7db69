import { ArgumentError } from "../tensor/index.ts";

/** @throws ArgumentError for an id outside of a vocabulary of `vocab` tokens */
export function checkTokens(ids: readonly number[], vocab: number): void {
  const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
  if (wrong !== undefined)
    throw new ArgumentError(`a token's id is a whole number from 0 to ${vocab - 1}, not ${wrong}`);
}

/** How many tokens two texts have in common at their beginning. */
export function commonStart(a: readonly number[], b: readonly number[]): number {
  const end = Math.min(a.length, b.length);
  let count = 0;
  while (count < end && a[count] === b[count]) count++;
  return count;
}

/** Tokens at the beginning that a sliding context keeps. */
const SINK = 4;

/** What is left of a context when it has become longer than `limit`: its beginning and the newest tokens. */
export function slid(ids: readonly number[], limit: number): readonly number[] {
  if (ids.length <= limit) return ids;
  const sink = Math.min(SINK, limit - 1);
  return [...ids.slice(0, sink), ...ids.slice(-Math.ceil((limit - sink) / 2))];
}
