import { expect, test } from "vitest";
import { denseValues, layerInputs, memorySource, scalablePoints } from "../../../src/methods/index.ts";
import { PartErrors } from "../../../src/methods/weights/part-errors.ts";
import { decode, type Weights } from "../../../src/models/index.ts";
import { asWeight, capture, Dense, roundToBlocks } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import type { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };
const windows = randomWindows(23, 4, 16);

/** What a whole forward pass has at a point of the first layer. */
async function seenAt(point: string, { config, weights }: ReturnType<typeof tinyModel>): Promise<HostTensor> {
  const name = `model.layers.0.${point}`;
  await using program = await compile(
    (ids) =>
      capture(
        (at) => at === name,
        () => decode(config, weights, ids),
      ).captured,
    [windows] as const,
    device,
  );
  return (await program(windows))[name] as HostTensor;
}

test.each([
  ["attn.in", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attn.out"],
  ["attn.mix", ["self_attn.o_proj"], "attn.out"],
  ["mlp.in", ["mlp.gate_proj", "mlp.up_proj"], "mlp.out"],
  ["mlp.act", ["mlp.down_proj"], "mlp.out"],
])("what is off behind %s is what a forward pass with these matrices changed is off", async (point, matrices, end) => {
  const model = tinyModel();
  const changed: Record<string, Dense> = {};
  for (const matrix of matrices) {
    const name = `model.layers.0.${matrix}.weight`;
    const values = await denseValues(asWeight(model.weights[name]!));
    changed[name] = new Dense(await denseValues(roundToBlocks(values, { format: "int3", block: 16 })));
  }
  // Only the first layer counts. Its feed-forward network has the input that it has in the model as it is, because no
  // matrix of the attention is changed with it.
  const [before, after] = [
    await seenAt(end, model),
    await seenAt(end, { ...model, weights: { ...model.weights, ...changed } as Weights }),
  ];
  let expected = 0;
  for (let i = 0; i < before.size; i++) expected += (after.at(i) - before.at(i)) ** 2;
  const points = (layer: number) => scalablePoints(model.config, layer);
  for await (const { index, weights, hidden } of layerInputs(memorySource(model), windows, points, device)) {
    if (index > 0) break;
    const name = `model.layers.0.${point}`;
    await using all = await PartErrors.of(model.config, { index, weights, hidden }, [name], { tokens: 64, ...device });
    expect(await all.behind(name, {})).toBe(0);
    expect((await all.behind(name, changed)) / expected).toBeCloseTo(1, 4);
    await using some = await PartErrors.of(model.config, { index, weights, hidden }, [name], { tokens: 17, ...device });
    const part = (await some.behind(name, changed)) / expected;
    expect(part).toBeGreaterThan(0.1);
    expect(part).toBeLessThan(0.9);
  }
});
