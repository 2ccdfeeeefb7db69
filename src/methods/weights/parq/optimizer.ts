import { latent, mapNamed, type Named, type Optimizer, part, scheduledDecay } from "../../../nn/optim/index.ts";
import {
  ArgumentError,
  add,
  and,
  div,
  equal,
  formatShape,
  greater,
  greaterEqual,
  HostTensor,
  isFloat,
  maximum,
  mod,
  mul,
  reshape,
  sub,
  type Tensor,
  when,
  where,
} from "../../../tensor/index.ts";
import { checkLevels, type LevelBits, type LevelRule, levelCount, levelsOf } from "./lsbq.ts";
import { binaryRelax, nearestLevel, parqProx } from "./prox.ts";
import { type Anneal, annealed, checkAnneal, inverseSlope } from "./schedule.ts";

/** How weights are made of latent ones: PARQ, the nearest level throughout (straight-through), or BinaryRelax. */
export type ProxKind = "parq" | "hard" | "binary-relax";

/** Parameters that are quantized alike. */
export interface QuantGroup {
  /** Whether a parameter, called by its path in the tree of parameters, belongs to the group. */
  readonly match: (name: string, shape: readonly number[]) => boolean;
  /** 0 is ternary. */
  readonly bits: LevelBits;
  /** Entries that share their levels: all of the tensor, a slice along its first axis, or as many neighbours in a row. Default `channel`. */
  readonly per?: "tensor" | "channel" | number;
  /** Default `lsbq`. */
  readonly levels?: LevelRule;
}

export interface ParqOptions extends Anneal {
  /** Default `parq`. */
  readonly prox?: ProxKind;
  /** Steps between two searches for levels. Default 10. */
  readonly quantPeriod?: number;
  /** Steps of the plain optimizer before quantization begins. Default 0. */
  readonly warmUp?: number;
  /** Divides latent weights by the sum of learning rates, where that is above 1, before they are quantized. Default false. */
  readonly shrink?: boolean;
  /**
   * Decoupled weight decay of the latent weights, of which the share `annealed` fades with the inverse slope; the inner
   * optimizer should have none for them.
   */
  readonly decay?: { readonly weight: number; readonly annealed: number };
}

/**
 * PARQ (Jin et al. 2025, algorithm 2): any optimizer `inner` moves latent weights by gradients taken at quantized ones,
 * and a piecewise-affine map between both steepens from the identity to rounding, so that the trained parameters end up
 * exactly on a few levels. The model, its loss and its gradients stay as they are. The state holds the latent weights
 * (`latent`), levels and step; see `packQuantized` for what to do with the result.
 * @throws ArgumentError for options that cannot be; at the start of training for groups that are empty or overlap, blocks
 *   that do not divide a row, and weights that are not finite
 */
export function parq(inner: Optimizer, groups: readonly QuantGroup[], options: ParqOptions): Optimizer {
  const { prox = "parq", quantPeriod = 10, warmUp = 0, shrink = false, decay } = options;
  checkAnneal(options);
  for (const { bits, levels = "lsbq" } of groups) checkLevels(bits, levels);
  if (!["parq", "hard", "binary-relax"].includes(prox))
    throw new ArgumentError(`prox is "parq", "hard" or "binary-relax", not "${prox}"`);
  if (!Number.isInteger(quantPeriod) || quantPeriod < 1)
    throw new ArgumentError(`quantPeriod must be a whole number from 1, not ${quantPeriod}`);
  if (!Number.isInteger(warmUp) || warmUp < 0)
    throw new ArgumentError(`warmUp must be a whole number from 0, not ${warmUp}`);

  const groupOf = (name: string, shape: readonly number[]): QuantGroup | undefined =>
    groups.find((group) => group.match(name, shape));
  const matches = (name: string, shape: readonly number[]): boolean => groupOf(name, shape) !== undefined;

  const view = (u: Tensor, levels: Tensor, step: Tensor): Tensor => {
    if (prox === "hard") return nearestLevel(u, levels);
    if (prox === "binary-relax") return binaryRelax(u, levels, annealed(step, options));
    return parqProx(u, levels, inverseSlope(step, options));
  };

  const rule = latent(
    {
      matches,
      init: (params) => {
        checkGroups(params, groups);
        return {
          step: HostTensor.from(0),
          travelled: HostTensor.from(0),
          levels: mapNamed(params, (p, name) => {
            const group = groupOf(name, p.shape)!;
            return HostTensor.zeros(p.dtype, [levelSets(name, p.shape, group), levelCount(group.bits)]);
          }),
        };
      },
      apply: (latents, state, rate) => {
        const step = add(state.step as Tensor, 1);
        const travelled = add(state.travelled as Tensor, rate);
        const since = sub(step, warmUp + 1);
        const search = and(greaterEqual(since, 0), equal(mod(since, quantPeriod), 0));
        const levels: Record<string, Tensor> = {};
        const params = mapNamed(latents, (p, name) => {
          const group = groupOf(name, p.shape as readonly number[])!;
          const rows = levelSets(name, p.shape as readonly number[], group);
          const u = reshape(shrink ? div(p, maximum(travelled, 1)) : p, [rows, -1]);
          levels[name] = when(search, () => levelsOf(u, group.bits, group.levels), part(state, "levels")[name]!);
          const w = reshape(view(u, levels[name], step), p.shape);
          return warmUp > 0 ? where(greater(step, warmUp), w, p) : w;
        });
        return { params, state: { step, travelled, levels } };
      },
    },
    decay ? scheduledDecay((step) => decayAt(step, decay), matches, inner) : inner,
  );
  return rule;

  function decayAt(step: Tensor, { weight, annealed: share }: { weight: number; annealed: number }): Tensor {
    return mul(add(mul(inverseSlope(step, options), share), 1 - share), weight);
  }
}

/** Sets of levels that a parameter has. @throws ArgumentError for blocks that do not divide its rows */
export function levelSets(name: string, shape: readonly number[], { per = "channel" }: QuantGroup): number {
  if (per === "tensor") return 1;
  if (per === "channel") return shape[0] ?? 1;
  const width = shape.at(-1) ?? 1;
  if (!Number.isInteger(per) || per < 1 || width % per !== 0)
    throw new ArgumentError(`blocks of ${per} do not divide the last dimension of "${name}" ${formatShape(shape)}`);
  return shape.reduce((a, b) => a * b, 1) / per;
}

function checkGroups(params: Named<HostTensor>, groups: readonly QuantGroup[]): void {
  const entries = Object.entries(params);
  for (const [name, p] of entries) {
    const mine = groups.flatMap((group, i) => (group.match(name, p.shape) ? [i] : []));
    if (mine.length > 1)
      throw new ArgumentError(`the parameter "${name}" is listed in quantized groups ${mine[0]} and ${mine[1]}`);
    if (!isFloat(p.dtype))
      throw new ArgumentError(`"${name}" is ${p.dtype}; only floating-point weights are quantized`);
    const bad = p.toArray().findIndex((x) => !Number.isFinite(x));
    if (bad >= 0)
      throw new ArgumentError(`"${name}" holds ${p.at(bad)} at entry ${bad}; only finite weights are quantized`);
  }
  groups.forEach((group, i) => {
    if (!entries.some(([name, p]) => group.match(name, p.shape)))
      throw new ArgumentError(`quantized group ${i} is empty: no trained parameter belongs to it`);
  });
}
