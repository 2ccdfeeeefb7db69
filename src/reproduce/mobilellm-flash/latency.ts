import {
  type Architecture,
  architectureConfig,
  architectureName,
  kendallTau,
  LatencyModel,
  parameterCount,
  promptFlops,
  spreadArchitectures,
} from "../../methods/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { Check, Setting } from "../system.ts";
import { type Laboratory, PROMPT, space } from "./laboratory.ts";

/** Shapes that the latency model is told, and fresh ones that it is judged by. */
const FRESH = 16;

/** A latency model of this machine, and how well it ranks shapes that it was not told, beside weights and operations. */
export async function latencyChecks(
  setting: Setting,
  laboratory: Laboratory,
): Promise<{ model: LatencyModel; checks: Check[]; metrics: Record<string, number> }> {
  const rng = new Rng(setting.seed).fork("latency");
  const told = setting.full ? 72 : 56;
  const shapes = spreadArchitectures(space, told + FRESH, rng.fork("shapes"));
  // In random order: of a spread, the last fill gaps between the first.
  rng.fork("order").shuffle(shapes);
  const measured = await laboratory.probe.measure(shapes, setting.signal);
  const samples = shapes.flatMap((architecture, i) =>
    measured[i] ? [{ architecture, ttftMs: measured[i].ttftMs }] : [],
  );
  const model = await LatencyModel.fit(samples.slice(0, -FRESH), space, rng.fork("model"));
  const fresh = samples.slice(-FRESH);
  const real = fresh.map(({ ttftMs }) => ttftMs);
  const config = (x: Architecture) => architectureConfig(laboratory.backbone.config, x, space.window);
  const tau = (score: (x: Architecture) => number): number =>
    kendallTau(
      fresh.map(({ architecture }) => score(architecture)),
      real,
    );
  const ours = tau((x) => model.predict(x).meanMs);
  const parameters = tau((x) => parameterCount(config(x)));
  const flops = tau((x) => promptFlops(config(x), PROMPT));
  const errors = fresh.map(({ architecture, ttftMs }) => Math.abs(model.predict(architecture).meanMs / ttftMs - 1));
  const error = errors.reduce((sum, value) => sum + value, 0) / errors.length;
  const worst = fresh[errors.indexOf(Math.max(...errors))]!.architecture;
  setting.log(
    `latency model of ${samples.length - FRESH} shapes: R² ${model.leaveOneOutR2.toFixed(3)}, error on fresh ones ${(100 * error).toFixed(1)} %, worst at ${architectureName(worst)}`,
  );
  const r2 = model.leaveOneOutR2;
  return {
    model,
    checks: [
      {
        what: `leave-one-out R² of log latency, ${samples.length - FRESH} shapes`,
        ours: r2,
        baseline: 0.9,
        holds: r2 >= 0.9 && samples.length - FRESH >= 48,
      },
      { what: `Kendall's tau with latency, ${fresh.length} fresh shapes`, ours, baseline: 0.8, holds: ours >= 0.8 },
      { what: "the same, and that of parameters + 0.05", ours, baseline: parameters, holds: ours >= parameters + 0.05 },
      { what: "the same, and that of operations", ours, baseline: flops, holds: ours >= flops },
    ],
    metrics: { "latency error on fresh shapes": error, "tau of parameters": parameters, "tau of operations": flops },
  };
}
