import {
  type Architecture,
  type AttentionKind,
  calibrationWindows,
  continuePreTraining,
  inherit,
  structuredImportance,
} from "../../methods/index.ts";
import { heldOutLoss } from "../small-language.ts";
import type { Check, Setting } from "../system.ts";
import { type Laboratory, space, WINDOW } from "./laboratory.ts";

/** Windows of held-out text that the workbench's model is judged on. */
const HELD_OUT = 48;
/** Its continued training: at a lower rate than that of small models, since it was trained for long. */
const LEARNING = { steps: 20, batch: 4, rate: 3e-4 } as const;

/** What layers without full attention gain in time, and cost in loss by where they lie. */
export async function attentionChecks(setting: Setting, laboratory: Laboratory): Promise<Check[]> {
  const { whole, probe } = laboratory;
  const everyOther = (kind: AttentionKind): Architecture => ({
    ...whole,
    attention: whole.attention.map((full, i) => (i % 2 === 0 ? full : kind)),
  });
  const [skip, slide] = await probe.measure([everyOther("skip"), everyOther("sliding")], setting.signal);
  const [ours, baseline] = [skip?.ttftMs ?? Number.NaN, slide?.ttftMs ?? Number.NaN];
  return [
    { what: "ms to the first token, every other layer skips, and slides", ours, baseline, holds: ours < baseline },
    await placement(setting),
  ];
}

/**
 * Skipping in every other layer against skipping in a row, on the workbench's own model: one that was trained for long and
 * looks back in all of its layers. Each layer skips once both ways, so that which layers matter more does not decide.
 */
async function placement(setting: Setting): Promise<Check> {
  const { bench, seed, signal, log } = setting;
  const model = await bench.languageModel();
  const { layers, dim, ffn } = model.config;
  const windows = calibrationWindows(model.training, { count: 8, length: WINDOW, seed });
  const importance = await structuredImportance(model, windows);
  const lossWithout = async (skipped: readonly number[]): Promise<number> => {
    const attention = Array.from({ length: layers }, (_, i): AttentionKind => (skipped.includes(i) ? "skip" : "full"));
    const candidate = inherit(model, { layers, dim, ffn, attention }, importance, space.window);
    const { training, heldOut } = model;
    const learning = { ...LEARNING, training, length: WINDOW, seed, signal };
    const weights = await continuePreTraining(candidate, learning);
    const judged = { config: candidate.config, weights, heldOut };
    const loss = await heldOutLoss(setting, judged, { windows: HELD_OUT, length: WINDOW });
    log(
      `${model.name} without attention in ${skipped.join(", ")}, after ${LEARNING.steps} steps: loss ${loss.toFixed(3)}`,
    );
    return loss;
  };
  const all = Array.from({ length: layers }, (_, i) => i);
  const half = Math.ceil(layers / 2);
  const mean = async (a: readonly number[], b: readonly number[]): Promise<number> =>
    ((await lossWithout(a)) + (await lossWithout(b))) / 2;
  const apart = await mean(
    all.filter((i) => i % 2 === 0),
    all.filter((i) => i % 2 === 1),
  );
  const together = await mean(all.slice(0, half), all.slice(half));
  return {
    what: `loss of ${model.name} where half of ${layers} layers skip, every other one, and in a row (means of both halves)`,
    ours: apart,
    baseline: together,
    holds: apart <= together - 0.02,
  };
}
