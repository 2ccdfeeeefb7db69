import { describe, expect, it } from "vitest";
import type { Architecture, LatencyProbe } from "../../../src/methods/index.ts";
import { searchedOn } from "../../../src/reproduce/mobilellm-flash/mobilellm-flash.ts";
import { localWorkbench } from "../../../src/reproduce/node.ts";
import { Rng } from "../../../src/tensor/index.ts";

/** Latencies of a device where attention costs far more than its operations, and each measurement errs by 3 %. */
function slowAttention(): LatencyProbe {
  const rng = new Rng(7);
  const cost = { full: 0.5, sliding: 0.45, skip: 0 };
  const milliseconds = ({ layers, dim, ffn, attention }: Architecture): number =>
    0.2 + 3e-6 * layers * dim * ffn + attention.reduce((sum, kind) => sum + cost[kind], 0);
  return {
    measure: async (shapes) =>
      shapes.map((shape) => ({ ttftMs: milliseconds(shape) * (1 + 0.03 * rng.normal()), decodeTokS: 1 })),
  };
}

// Real timings have no place in a test, on machines that do other things meanwhile: the device is made up, the rest is not.
describe("the experiment on MobileLLM-Flash", { timeout: 1_800_000 }, () => {
  it("holds on a device whose latencies are known", async () => {
    const { signal } = new AbortController();
    const setting = { seed: 1, full: false, bench: localWorkbench(), signal, log: () => undefined };
    const { checks } = await searchedOn(setting, slowAttention);
    expect(checks).toHaveLength(8);
    expect(checks.filter(({ holds }) => !holds)).toEqual([]);
  });
});
