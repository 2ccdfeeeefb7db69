import { readFile } from "node:fs/promises";
import { questPack, questWeights } from "pare/methods";
import { decoderLogits, requireTokenizer, type Weights } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";
import { crossEntropy, optim } from "pare/nn";
import { TokenBatches, train } from "pare/train";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);
const tokens = tokenizer.encode(await readFile(`${embeddedModel}/training-sample.txt`, "utf8"));

// Goes on training the model with weights and activations of 4 bits. `initDecoder` gives weights to start from scratch.
const steps = 200;
const { params } = await train({
  params: (await questWeights(model.weights, { weightBits: 4, inputBits: 4 })) as Weights,
  data: new TokenBatches(tokens, { batch: 8, length: 128 }),
  steps,
  loss: (weights, { ids, targets }) => crossEntropy(decoderLogits(model.config, weights as Weights, ids), targets),
  optimizer: optim.adamw({ beta2: 0.95, weightDecay: 0.1 }),
  schedule: optim.warmUp(steps / 10, optim.cosine(5e-4, steps)),
});
await saveModel("storybook-quest", { json: model.json, weights: await questPack(params), tokenizer });
