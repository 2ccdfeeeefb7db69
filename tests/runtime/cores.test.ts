import { availableParallelism } from "node:os";
import { expect, it } from "vitest";
import { physicalCores } from "../../src/runtime/cores.ts";
import { loadDevice } from "../../src/runtime/index.ts";

const cores = physicalCores();

it.runIf(process.platform === "linux")("counts no more cores than there are processors", () => {
  expect(cores).toBeGreaterThanOrEqual(1);
  expect(cores).toBeLessThanOrEqual(availableParallelism());
});

it("takes a thread for each core unless told otherwise", async () => {
  expect((await loadDevice({ device: "cpu" })).options.intraOpNumThreads).toBe(cores);
  expect((await loadDevice({ device: "cpu", threads: 3 })).options.intraOpNumThreads).toBe(3);
});
