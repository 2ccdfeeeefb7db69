import { GenerateError } from "./errors.ts";
import { Ranking } from "./ranking.ts";

/** Tokens that may come next with their scores, of which a softmax makes probabilities. Filters narrow them down. */
export interface Candidates {
  readonly tokens: Uint32Array;
  readonly scores: Float32Array;
}

/**
 * The tokens of `logits [vocab]` with a finite score, or those of them that are `allowed`, in ascending order.
 * @throws GenerateError when logits are NaN or no token is left
 */
export function candidatesOf(logits: Float32Array, allowed?: Uint32Array): Candidates {
  const count = allowed?.length ?? logits.length;
  const tokens = new Uint32Array(count);
  const scores = new Float32Array(count);
  let kept = 0;
  for (let i = 0; i < count; i++) {
    const token = allowed ? allowed[i]! : i;
    const score = logits[token]!;
    if (Number.isFinite(score)) {
      tokens[kept] = token;
      scores[kept++] = score;
    } else if (score !== Number.NEGATIVE_INFINITY)
      throw new GenerateError(`the model gave token ${token} the score ${score}; its weights are damaged or overflow`);
  }
  if (kept === 0) throw new GenerateError("no token can come next: the model rules out all that are allowed");
  return { tokens: tokens.subarray(0, kept), scores: scores.subarray(0, kept) };
}

/** The candidates with their scores divided by a temperature above 0. */
export function tempered({ tokens, scores }: Candidates, temperature: number): Candidates {
  return temperature === 1 ? { tokens, scores } : { tokens, scores: scores.map((s) => s / temperature) };
}

/** The `k` best candidates (Fan et al. 2018). */
export function topK(candidates: Candidates, k: number): Candidates {
  const { scores } = candidates;
  if (k >= scores.length) return candidates;
  // Cut into k parts, the best of each are k candidates; none that is worse than all of these is sought.
  let floor = Number.POSITIVE_INFINITY;
  for (let i = 0; i < k; i++) {
    const [start, end] = [Math.floor((i * scores.length) / k), Math.floor(((i + 1) * scores.length) / k)];
    floor = Math.min(floor, largest(scores, start, end));
  }
  const ranking = new Ranking(scores, indicesFrom(scores, floor));
  return pick(
    candidates,
    Array.from({ length: k }, () => ranking.next()!),
  );
}

/** The fewest best candidates whose probabilities sum to at least `p` (nucleus sampling; Holtzman et al. 2020). */
export function topP(candidates: Candidates, p: number): Candidates {
  if (p === 1) return candidates;
  const probabilities = softmax(candidates.scores);
  // Those below this are together less likely than 1 - p, so the ones that are sought lie among the others.
  const floor = (1 - p) / probabilities.length;
  return pick(candidates, firstOf(new Ranking(candidates.scores, indicesFrom(probabilities, floor)), probabilities, p));
}

/** The candidates at least `p` times as likely as the best (Nguyen et al. 2024). */
export function minP(candidates: Candidates, p: number): Candidates {
  if (p === 0) return candidates;
  return pick(candidates, indicesFrom(candidates.scores, largest(candidates.scores) + Math.log(p)));
}

/**
 * The fewest candidates with a surprise (`-log` of the probability) nearest to the expected one whose probabilities sum
 * to at least `p` (locally typical sampling; Meister et al. 2023, equation 8).
 */
export function typical(candidates: Candidates, p: number): Candidates {
  if (p === 1) return candidates;
  const probabilities = softmax(candidates.scores);
  const surprise = probabilities.map((q) => -Math.log(q));
  const entropy = probabilities.reduce((sum, q, i) => (q > 0 ? sum + q * surprise[i]! : sum), 0);
  const nearness = surprise.map((s) => -Math.abs(s - entropy));
  const all = indicesFrom(nearness, Number.NEGATIVE_INFINITY);
  return pick(candidates, firstOf(new Ranking(nearness, all), probabilities, p));
}

/** The best candidate, the first of equals. */
export function best({ tokens, scores }: Candidates): number {
  return tokens[scores.indexOf(largest(scores))]!;
}

/** The token in whose share of the interval from 0 to 1 the point `u` falls. */
export function drawn(tokens: Uint32Array, probabilities: Float64Array, u: number): number {
  let left = u;
  let last = 0;
  for (let i = 0; i < tokens.length; i++) {
    if (probabilities[i] === 0) continue;
    left -= probabilities[i]!;
    if (left < 0) return tokens[i]!;
    last = i;
  }
  // Rounding may leave a remainder behind the last.
  return tokens[last]!;
}

/** Probabilities of scores, in double precision. */
export function softmax(scores: Float32Array): Float64Array {
  const top = largest(scores);
  const result = new Float64Array(scores.length);
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += result[i] = Math.exp(scores[i]! - top);
  for (let i = 0; i < scores.length; i++) result[i]! /= total;
  return result;
}

/** Natural logarithm of the probability that `logits [vocab]` give `token`. */
export function logProbability(logits: Float32Array, token: number): number {
  const top = largest(logits);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp(logits[i]! - top);
  return logits[token]! - top - Math.log(total);
}

function largest(values: Float32Array, start = 0, end = values.length): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = start; i < end; i++) if (values[i]! > top) top = values[i]!;
  return top;
}

function indicesFrom(values: Float32Array | Float64Array, floor: number): Uint32Array {
  const indices = new Uint32Array(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i++) if (values[i]! >= floor) indices[count++] = i;
  return indices.subarray(0, count);
}

/** The first indices of a ranking until their probabilities sum to `p`. */
function firstOf(ranking: Ranking, probabilities: Float64Array, p: number): number[] {
  const indices: number[] = [];
  for (let total = 0; total < p; ) {
    const index = ranking.next();
    if (index === undefined) break;
    indices.push(index);
    total += probabilities[index]!;
  }
  return indices;
}

function pick(from: Candidates, indices: Uint32Array | readonly number[]): Candidates {
  const tokens = new Uint32Array(indices.length);
  const scores = new Float32Array(indices.length);
  for (let i = 0; i < indices.length; i++) {
    tokens[i] = from.tokens[indices[i]!]!;
    scores[i] = from.scores[indices[i]!]!;
  }
  return { tokens, scores };
}
