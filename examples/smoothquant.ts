import { readFile } from "node:fs/promises";
import {
  calibrationWindows,
  compressDecoder,
  encodeCalibration,
  foldScales,
  memorySource,
  nearest,
  planFor,
  smoothScales,
} from "pare/methods";
import { requireTokenizer } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);
const text = await readFile(`${embeddedModel}/training-sample.txt`, "utf8");
const windows = calibrationWindows(encodeCalibration(tokenizer, text), { count: 32, length: 256 });

// The scales change nothing of what the model computes; its 8-bit matrices are then run with 8-bit activations.
const source = memorySource(model);
const smooth = foldScales(source, await smoothScales(source, windows, { strength: 0.5 }));
const plan = planFor(model.config, { layers: nearest({ format: "int8", block: "channel" }) });
const { weights } = await compressDecoder(smooth, plan, windows);
await saveModel("storybook-smoothquant", { json: model.json, weights, tokenizer });
