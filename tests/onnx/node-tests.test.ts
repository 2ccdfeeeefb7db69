import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fromOnnx } from "../../src/onnx/index.ts";
import { runBytes } from "../support/foreign-model.ts";
import { type NodeTest, namedInputs, type Outcome, readNodeTests, runNodeTest } from "../support/onnx-node-tests.ts";

const archive = new URL("../../../shared/data/onnx/onnx-1.12-node-tests.tar.gz", import.meta.url);

/** Why a case of the suite may be refused: what pare leaves out on purpose. */
const REFUSALS = [
  /is a (sequence|optional)|sequences and optionals are not supported/,
  /element type string|text and files are read outside/,
  /control flow is not supported/,
  /random numbers come in as inputs/,
  /training mode/,
  /ai\.onnx\.preview\.training/,
  // Tests of the brain float type store its bits as u16.
  /takes bf16, not u16/,
  // Signal processing, and un-pooling.
  /pare does not know: (DFT|STFT|BlackmanWindow|HannWindow|HammingWindow|MelWeightMatrix|MaxUnpool),/,
  // Lengths that are floats known only at run time.
  /Range\(f32.*the length of this range depends on data/,
  /OneHot\(.*f32 \[\].*its depth depends on data/,
  /diagonals are not supported/,
  /tf_half_pixel_for_nn/,
];

describe("the ONNX project's operator tests (needs shared/data/onnx)", () => {
  it.skipIf(!existsSync(archive))(
    "give their stored outputs after import, or are refused for a known reason",
    async () => {
      const cases = readNodeTests(readFileSync(archive));
      expect(cases).toHaveLength(932);
      const counts: Record<Outcome["kind"], number> = { passed: 0, refused: 0, failed: 0 };
      const surprises: string[] = [];
      for (const test of cases) {
        const outcome = await runNodeTest(test);
        counts[outcome.kind]++;
        if (outcome.kind === "refused" && !REFUSALS.some((pattern) => pattern.test(outcome.reason)))
          surprises.push(`${test.name} is refused: ${outcome.reason}`);
        // Where onnxruntime fails on the very file as well, there is nothing for us to get right.
        if (outcome.kind === "failed" && (await originalPasses(test)))
          surprises.push(`${test.name} fails: ${outcome.reason}`);
      }
      expect(surprises).toEqual([]);
      expect(counts.passed).toBeGreaterThanOrEqual(819);
      expect(counts.failed).toBeLessThanOrEqual(11);
    },
    300_000,
  );
});

/** Whether onnxruntime itself gets a case right that we do not. */
async function originalPasses(test: NodeTest): Promise<boolean> {
  try {
    const { feeds, matches } = namedInputs(fromOnnx(test.model), test);
    return matches(await runBytes(test.model, feeds));
  } catch {
    return false;
  }
}
