import { writeFile } from "node:fs/promises";
import { encodeAdapter, quantizeBoth, rolora } from "pare/methods";
import { requireTokenizer } from "pare/models";
import { embeddedModel, openModel, saveModel } from "pare/models/node";
import { ExampleBatches } from "pare/train";

await using model = await openModel(embeddedModel);
const tokenizer = requireTokenizer(model);

// A task: to say a word again. Only the answers are learned.
const examples = ["cat", "ball", "tree", "sun", "bird", "boat", "cake", "dog"].map((word) => {
  const prompt = tokenizer.encode(`Repeat the word: ${word}\nIt is`);
  const answer = tokenizer.encode(` ${word}.`, { addSpecialTokens: false });
  return { ids: [...prompt, ...answer], learned: [...prompt.map(() => false), ...answer.map(() => true)] };
});
const data = new ExampleBatches(examples, { batch: 8, length: 32 });
const { merged, adapter } = await rolora(model, data, { rank: 8, alpha: 16, steps: 100, rate: 1e-3 });
await writeFile("storybook.adapter.safetensors", await encodeAdapter(adapter));

// The tuned model with 4-bit weights and activations, still rotated.
const { weights } = await quantizeBoth(merged, { weightBits: 4, inputBits: 4 });
await saveModel("storybook-rolora", { json: { ...model.json, tie_word_embeddings: false }, weights, tokenizer });
