import type { Architecture, AttentionKind } from "../../methods/index.ts";
import type { Check, Setting } from "../system.ts";
import type { Laboratory } from "./laboratory.ts";

/** Layers of the backbone that skip attention, of all. */
const SKIPPED = 4;

/** Which layers go without full attention, and how. */
export async function attentionChecks(setting: Setting, laboratory: Laboratory): Promise<Check[]> {
  const { layers } = laboratory.whole;
  const shape = (attention: readonly AttentionKind[]): Architecture => ({ ...laboratory.whole, attention });
  const everyOther = (kind: AttentionKind): Architecture =>
    shape(Array.from({ length: layers }, (_, i) => (i % 2 === 0 ? "full" : kind)));
  const [skip, slide] = await laboratory.probe.measure([everyOther("skip"), everyOther("sliding")], setting.signal);
  const [ours, baseline] = [skip?.ttftMs ?? Number.NaN, slide?.ttftMs ?? Number.NaN];
  const meanLoss = async (placements: readonly (readonly number[])[]): Promise<number> => {
    let sum = 0;
    for (const skipped of placements) {
      const kinds = Array.from({ length: layers }, (_, i): AttentionKind => (skipped.includes(i) ? "skip" : "full"));
      sum += await laboratory.loss(shape(kinds));
    }
    return sum / placements.length;
  };
  const apart = await meanLoss(placementsApart(layers, SKIPPED));
  const together = await meanLoss(placementsInARow(layers, SKIPPED));
  return [
    { what: "ms to the first token, every other layer skips, and slides", ours, baseline, holds: ours < baseline },
    {
      what: `loss of ${SKIPPED} layers of ${layers} that skip apart, and in a row, means of all places`,
      ours: apart,
      baseline: together,
      holds: apart <= together - 0.02,
    },
  ];
}

/** All choices of `count` layers no two of which are neighbours. */
function placementsApart(layers: number, count: number, first = 0): number[][] {
  if (count === 0) return [[]];
  const found: number[][] = [];
  for (let i = first; i < layers; i++)
    for (const rest of placementsApart(layers, count - 1, i + 2)) found.push([i, ...rest]);
  return found;
}

function placementsInARow(layers: number, count: number): number[][] {
  return Array.from({ length: layers - count + 1 }, (_, first) => Array.from({ length: count }, (_, i) => first + i));
}
