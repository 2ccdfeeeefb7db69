import { readFile } from "node:fs/promises";
import { calibrationWindows, compressDecoder, encodeCalibration, gptq, memorySource, planFor } from "pare/methods";
import { requireTokenizer } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);
const text = await readFile(`${embeddedModel}/training-sample.txt`, "utf8");
const windows = calibrationWindows(encodeCalibration(tokenizer, text), { count: 32, length: 256 });

const plan = planFor(model.config, { layers: gptq({ format: "int4", block: 32 }) });
const { weights, reports } = await compressDecoder(memorySource(model), plan, windows);
for (const { name, outputError } of reports) console.log(`${name}: output error ${outputError?.toFixed(4)}`);
await saveModel("storybook-gptq", { json: model.json, weights, tokenizer });
