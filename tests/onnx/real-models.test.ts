import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readOnnxFile } from "../../src/onnx/from-onnx.node.ts";
import { checkModel, OnnxError, toOnnx } from "../../src/onnx/index.ts";
import { add, grad, mean, mul, type Tensor } from "../../src/tensor/index.ts";
import { noiseTensor, runBytes } from "../support/foreign-model.ts";
import { compare } from "../support/onnx-node-tests.ts";
import { run } from "../support/run.ts";

const data = new URL("../../../shared/data/", import.meta.url);
const at = (path: string): string => new URL(path, data).pathname;

describe("models of other programs", () => {
  const models = ["vision/ultraface/version-slim-320.onnx", "audio/dtln/model_1.onnx", "audio/dtln/model_2.onnx"];
  for (const path of models) {
    it.skipIf(!existsSync(at(path)))(`${path} computes the same after import (needs shared/data)`, async () => {
      const model = readOnnxFile(at(path));
      const feeds = Object.fromEntries(model.inputs.map((p, i) => [p.name, noiseTensor(p.shape as number[], i + 1)]));
      const written = toOnnx(model.graph());
      checkModel(written);
      const [got, want] = [
        await runBytes(written, feeds),
        await runBytes(new Uint8Array(readFileSync(at(path))), feeds),
      ];
      expect(Object.keys(got)).toEqual(Object.keys(want));
      for (const [name, t] of Object.entries(want)) expect(compare(got[name]!, t, 1e-4), name).toBeUndefined();
    });
  }

  const refused: [string, RegExp][] = [
    [
      "audio/silero-vad/silero_vad_16k_op15.onnx",
      /^the model uses operators that pare does not know: If, .*control flow is not supported/,
    ],
    [
      "vision/superres/pytorch_superresolution_opset18.onnx",
      /DecodeImage, .*text and files are read outside of the model.*EncodeImage/,
    ],
  ];
  for (const [path, reason] of refused) {
    it.skipIf(!existsSync(at(path)))(`${path} is refused with its reason (needs shared/data)`, () => {
      expect(() => readOnnxFile(at(path))).toThrow(OnnxError);
      expect(() => readOnnxFile(at(path))).toThrow(reason);
    });
  }

  const recurrent = "audio/dtln/model_1.onnx";
  it.skipIf(!existsSync(at(recurrent)))(
    `a weight of ${recurrent} can be improved by its gradient (needs shared/data)`,
    async () => {
      const model = readOnnxFile(at(recurrent));
      const feeds = Object.fromEntries(model.inputs.map((p, i) => [p.name, noiseTensor(p.shape as number[], i + 1)]));
      const [name, weight] = Object.entries(model.weights).find(([, w]) => w.shape.length === 3)!;
      const loss = (w: Tensor): Tensor =>
        Object.values(model.call(feeds, { [name]: w }))
          .map((t) => mean(mul(t, t)))
          .reduce((a, b) => add(a, b));
      const [before, slope] = await run((w) => [loss(w), grad(loss(w), w)], weight);
      const norm = Math.sqrt(slope!.toArray().reduce((s, g) => s + g * g, 0));
      expect(norm).toBeGreaterThan(0);
      const moved = weight.clone();
      for (let i = 0; i < moved.size; i++) moved.set(i, moved.at(i) - (0.1 * slope!.at(i)) / norm);
      const [after] = await run(loss, moved);
      expect(after!.item()).toBeLessThan(before!.item());
    },
  );
});
