import { readFile } from "node:fs/promises";
import {
  calibrationWindows,
  compressDecoder,
  encodeCalibration,
  gptq,
  memorySource,
  onlineHadamard,
  planFor,
  rotateResidual,
  roundedInputs,
} from "pare/methods";
import { requireTokenizer } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);
const text = await readFile(`${embeddedModel}/training-sample.txt`, "utf8");
const windows = calibrationWindows(encodeCalibration(tokenizer, text), { count: 32, length: 256 });

// 4-bit weights and 4-bit activations; two kinds of matrices turn their inputs when they run.
const rotated = rotateResidual(memorySource(model));
const layers = roundedInputs(gptq({ format: "int4", block: "channel" }), { bits: 4, per: "token" });
const online = onlineHadamard(layers);
const except = { "*.*.*.mlp.down_proj.weight": online, "*.*.*.self_attn.o_proj.weight": online };
const { weights } = await compressDecoder(rotated, planFor(rotated.config, { layers, except }), windows);
await saveModel("storybook-quarot", { json: { ...model.json, tie_word_embeddings: false }, weights, tokenizer });
