import { readFile } from "node:fs/promises";
import {
  awqScales,
  calibrationWindows,
  clipped,
  compressDecoder,
  encodeCalibration,
  foldScales,
  memorySource,
  planFor,
} from "pare/methods";
import { requireTokenizer } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);
const text = await readFile(`${embeddedModel}/training-sample.txt`, "utf8");
const windows = calibrationWindows(encodeCalibration(tokenizer, text), { count: 32, length: 256 });

// The scales change nothing of what the model computes, only what is lost when its matrices are rounded to this grid.
const grid = { format: "int4", block: 32, symmetric: false } as const;
const source = memorySource(model);
const scaled = foldScales(source, await awqScales(source, windows, grid));
const { weights } = await compressDecoder(scaled, planFor(model.config, { layers: clipped(grid) }), windows);
await saveModel("storybook-awq", { json: model.json, weights, tokenizer });
