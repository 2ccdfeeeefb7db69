import { kendallTau, spreadArchitectures } from "../../methods/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { Check, Setting } from "../system.ts";
import { type Laboratory, STEPS, space } from "./laboratory.ts";

/** Rates that training from random weights is given the best of. */
const RATES = [1e-3, 3e-3];

/** What inherited weights are worth against random ones, and whether a short training ranks shapes as a longer one does. */
export async function inheritanceChecks(setting: Setting, laboratory: Laboratory): Promise<Check[]> {
  const shapes = spreadArchitectures(space, 8, new Rng(setting.seed).fork("inheritance"));
  const gains: number[] = [];
  const scratches: number[] = [];
  for (const shape of shapes.slice(0, setting.full ? 4 : 2)) {
    const rates: number[] = [];
    for (const rate of RATES) rates.push(await laboratory.scratchLoss(shape, rate));
    scratches.push(Math.min(...rates));
    gains.push(await laboratory.loss(shape));
  }
  const worst = gains.map((loss, i) => loss - scratches[i]!).reduce((a, b) => Math.max(a, b));
  const at = gains.findIndex((loss, i) => loss - scratches[i]! === worst);
  const inherited: Check = {
    what: `loss after ${STEPS} steps and from random weights, worst of ${gains.length} shapes`,
    ours: gains[at]!,
    baseline: scratches[at]!,
    holds: worst <= -0.5,
  };
  if (!setting.full) return [inherited];
  const [short, long] = [[] as number[], [] as number[]];
  for (const shape of shapes) {
    short.push(await laboratory.loss(shape));
    long.push(await laboratory.loss(shape, 5 * STEPS));
  }
  const tau = kendallTau(short, long);
  return [
    inherited,
    {
      what: `Kendall's tau of losses after ${STEPS} and ${5 * STEPS} steps, 8 shapes`,
      ours: tau,
      baseline: 0.6,
      holds: tau >= 0.6,
    },
  ];
}
