import { type DecoderConfig, decoderShapes } from "../../../models/index.ts";
import { ArgumentError, type Rng } from "../../../tensor/index.ts";
import type { Choices } from "../improvement.ts";
import type { MixedPoint } from "../kernel.ts";

/** What a layer has of attention: all of it, a sliding window, or none (its feed-forward part stays). */
export type AttentionKind = "full" | "sliding" | "skip";

/** A smaller decoder to be made from a larger one. Heads and their size are the larger one's. */
export interface Architecture {
  readonly layers: number;
  /** Width of the residual stream. */
  readonly dim: number;
  readonly ffn: number;
  /** By layer that is left. */
  readonly attention: readonly AttentionKind[];
}

/** The architectures to choose from: every combination that keeps to the constraints. */
export interface SearchSpace {
  readonly layers: readonly number[];
  readonly dim: readonly number[];
  readonly ffn: readonly number[];
  readonly attention: readonly AttentionKind[];
  /** Positions that a sliding layer sees back. */
  readonly window: number;
  /** Most layers without full attention in a row; the paper found three or more to be bad. Default 2. */
  readonly maxConsecutiveEfficient?: number;
}

/**
 * @throws ArgumentError for a space that is empty, asks for more than the backbone has, or for widths that its heads do
 *   not divide
 */
export function checkSpace(space: SearchSpace, backbone: DecoderConfig): void {
  for (const [name, values, most] of [
    ["layers", space.layers, backbone.layers],
    ["dim", space.dim, backbone.dim],
    ["ffn", space.ffn, backbone.ffn],
  ] as const) {
    if (values.length === 0) throw new ArgumentError(`the search space is empty: it has no value for ${name}`);
    const wrong = values.find((value) => !Number.isInteger(value) || value < 1 || value > most);
    if (wrong !== undefined)
      throw new ArgumentError(`the search space has ${name} ${wrong}, but the backbone has ${most}; give 1 to ${most}`);
  }
  const odd = space.dim.find((dim) => dim % backbone.headDim !== 0);
  if (odd !== undefined)
    throw new ArgumentError(`dim ${odd} is not a multiple of the head size ${backbone.headDim}, which stays as it is`);
  if (space.attention.length === 0) throw new ArgumentError("the search space is empty: it has no kind of attention");
  if (!space.attention.includes("full"))
    throw new ArgumentError(
      `no architecture of ${space.attention.join(" and ")} layers meets the constraint: at least one full-attention layer is required`,
    );
  if (space.attention.includes("sliding") && !(Number.isInteger(space.window) && space.window >= 1))
    throw new ArgumentError(`sliding layers need a window of at least one position, not ${space.window}`);
}

/** @throws ArgumentError for an architecture that is not in the space */
export function checkArchitecture({ layers, dim, ffn, attention }: Architecture, space: SearchSpace): void {
  for (const [name, value] of Object.entries({ layers, dim, ffn }))
    if (!space[name as "layers"].includes(value))
      throw new ArgumentError(`${name} ${value} is not one of ${space[name as "layers"].join(", ")}`);
  if (attention.length !== layers)
    throw new ArgumentError(`${layers} layers need as many kinds of attention, not ${attention.length}`);
  const other = attention.find((kind) => !space.attention.includes(kind));
  if (other !== undefined) throw new ArgumentError(`${other} attention is not one of ${space.attention.join(", ")}`);
  if (!attention.includes("full")) throw new ArgumentError("at least one full-attention layer is required");
  const most = mostEfficient(space);
  if (longestEfficient(attention) > most)
    throw new ArgumentError(
      `${longestEfficient(attention)} layers in a row are without full attention; at most ${most} may be`,
    );
}

const mostEfficient = ({ maxConsecutiveEfficient = 2 }: SearchSpace): number => maxConsecutiveEfficient;

function longestEfficient(attention: readonly AttentionKind[]): number {
  let [run, longest] = [0, 0];
  for (const kind of attention) {
    run = kind === "full" ? 0 : run + 1;
    longest = Math.max(longest, run);
  }
  return longest;
}

const allowed = (attention: readonly AttentionKind[], space: SearchSpace): boolean =>
  attention.includes("full") && longestEfficient(attention) <= mostEfficient(space);

/** `6 x 96, ffn 256, full skip full ...` as `6x96x256 fsf...`: short, and the same for the same architecture only. */
export function architectureName({ layers, dim, ffn, attention }: Architecture): string {
  const letters = { full: "f", sliding: "w", skip: "-" } as const;
  return `${layers}x${dim}x${ffn} ${attention.map((kind) => letters[kind]).join("")}`;
}

/** The space as a search sees it; a step changes one size by one level, one layer's attention, or swaps two layers'. */
export function architectureChoices(space: SearchSpace): Choices<Architecture> {
  return {
    key: architectureName,
    random: (rng) => randomArchitecture(space, rng),
    neighbours: (x) => neighbours(space, x).filter(({ attention }) => allowed(attention, space)),
  };
}

function randomArchitecture(space: SearchSpace, rng: Rng): Architecture {
  const layers = rng.choice(space.layers);
  const efficient = space.attention.filter((kind) => kind !== "full");
  const share = rng.uniform();
  const attention: AttentionKind[] = [];
  while (attention.length < layers) {
    const wanted = efficient.length > 0 && rng.uniform() < share ? rng.choice(efficient) : "full";
    attention.push(allowed([...attention, wanted, "full"], space) ? wanted : "full");
  }
  if (!attention.includes("full")) attention[rng.integer(layers)] = "full";
  return { layers, dim: rng.choice(space.dim), ffn: rng.choice(space.ffn), attention };
}

function neighbours(space: SearchSpace, x: Architecture): Architecture[] {
  const found: Architecture[] = [];
  const { attention } = x;
  for (const name of ["dim", "ffn"] as const)
    for (const value of beside(space[name], x[name])) found.push({ ...x, [name]: value });
  for (const layers of beside(space.layers, x.layers)) {
    if (layers < x.layers) found.push({ ...x, layers, attention: attention.slice(0, layers) });
    else
      for (const kind of space.attention)
        found.push({
          ...x,
          layers,
          attention: [...attention, ...new Array<AttentionKind>(layers - x.layers).fill(kind)],
        });
  }
  attention.forEach((own, i) => {
    for (const kind of space.attention) if (kind !== own) found.push({ ...x, attention: attention.with(i, kind) });
    for (let j = 0; j < i; j++)
      if (attention[j] !== own) found.push({ ...x, attention: attention.with(i, attention[j]!).with(j, own) });
  });
  return found;
}

/** The levels next to one. */
function beside(levels: readonly number[], value: number): number[] {
  const sorted = [...new Set(levels)].sort((a, b) => a - b);
  const at = sorted.indexOf(value);
  return [sorted[at - 1], sorted[at + 1]].filter((level) => level !== undefined);
}

/** Candidates that each further one of a spread is the best of. */
const CANDIDATES = 24;

/**
 * Different architectures that cover the space evenly: each is the one of random candidates that lies furthest from those
 * before it (Mitchell 1991), which does for discrete spaces what a Sobol sequence does for cubes.
 */
export function spreadArchitectures(space: SearchSpace, count: number, rng: Rng): Architecture[] {
  const place = architecturePoint(space);
  const found: Architecture[] = [];
  const points: MixedPoint[] = [];
  while (found.length < count) {
    const candidates = Array.from({ length: CANDIDATES }, () => randomArchitecture(space, rng));
    const measured = candidates.map((x) => {
      const point = place(x);
      return { x, point, gap: points.reduce((gap, other) => Math.min(gap, distance(point, other)), Infinity) };
    });
    const best = measured.reduce((a, b) => (b.gap > a.gap ? b : a));
    if (best.gap === 0)
      throw new ArgumentError(
        `the search space has fewer than ${count} architectures; ask for fewer, or give more levels`,
      );
    found.push(best.x);
    points.push(best.point);
  }
  return found;
}

function distance(a: MixedPoint, b: MixedPoint): number {
  const square = a.numbers.reduce((sum, v, i) => sum + (v - b.numbers[i]!) ** 2, 0);
  const places = Math.max(a.choices.length, b.choices.length);
  const differing = Array.from({ length: places }, (_, i) => a.choices[i] !== b.choices[i]).filter(Boolean).length;
  return Math.sqrt(square + differing / places);
}

/** Numbers that `architecturePoint` gives. */
export const POINT_NUMBERS = 5;

/** An architecture as a kernel sees it: sizes and counts of full and sliding layers from 0 to 1, and the pattern. */
export function architecturePoint(space: SearchSpace): (x: Architecture) => MixedPoint {
  const scaled = (levels: readonly number[], value: number): number => {
    const [low, high] = [Math.min(...levels), Math.max(...levels)];
    return high === low ? 0 : (value - low) / (high - low);
  };
  const most = Math.max(...space.layers);
  return ({ layers, dim, ffn, attention }) => {
    const share = (kind: AttentionKind): number => attention.filter((own) => own === kind).length / most;
    return {
      numbers: [
        scaled(space.layers, layers),
        scaled(space.dim, dim),
        scaled(space.ffn, ffn),
        share("full"),
        share("sliding"),
      ],
      choices: [...attention, ...new Array<string>(most - layers).fill("")],
    };
  };
}

/** The configuration of an architecture made from a backbone. */
export function architectureConfig(
  backbone: DecoderConfig,
  { layers, dim, ffn, attention }: Architecture,
  window: number,
): DecoderConfig {
  return { ...backbone, layers, dim, ffn, window: windowsOf(attention, window) };
}

/** By layer, as `DecoderConfig.window`. */
export function windowsOf(attention: readonly AttentionKind[], window: number): (number | null)[] {
  return attention.map((kind) => ({ full: null, sliding: window, skip: 0 })[kind]);
}

/** Weights of a decoder. */
export function parameterCount(config: DecoderConfig): number {
  return [...decoderShapes(config).values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Floating-point operations of reading a prompt and choosing one token: a multiplication and an addition count as two. */
export function promptFlops(config: DecoderConfig, tokens: number): number {
  const { heads, headDim, dim, vocab, window } = config;
  let [matrices, scores] = [0, 0];
  for (const [name, shape] of decoderShapes(config))
    if (name.includes("_proj.weight")) matrices += shape[0]! * shape[1]!;
  for (const own of window) for (let t = 1; own !== 0 && t <= tokens; t++) scores += Math.min(t, own ?? t);
  return 2 * (matrices * tokens + 2 * scores * heads * headDim + vocab * dim);
}
