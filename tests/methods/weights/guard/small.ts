import { Tokenizer, trainBpe } from "../../../../src/formats/index.ts";
import { buildGuardPrompt, GuardCodec, type GuardExample, type GuardPolicy } from "../../../../src/methods/index.ts";
import { decoderConfig, initDecoder } from "../../../../src/models/index.ts";
import { Rng } from "../../../../src/tensor/index.ts";

export const policy: GuardPolicy = {
  categories: [
    { code: "S1", name: "Food", text: "" },
    { code: "S2", name: "Water", text: "" },
  ],
};

const parts = { S1: ["cake", "pie"], S2: ["river", "pond"], safe: ["tree", "hill", "road"] } as const;

/** Conversations that are unsafe where a word of a category occurs. */
export function conversations(count: number, seed: number): GuardExample[] {
  const rng = new Rng(seed);
  return Array.from({ length: count }, (_, i) => {
    const categories = i % 2 === 0 ? [] : [rng.choice(["S1", "S2"] as const)];
    const word = rng.choice(parts[categories[0] ?? "safe"]);
    const text = `Look at the ${word}.`;
    return {
      turns: [{ role: "user" as const, text }],
      judge: "user" as const,
      verdict: { safe: categories.length === 0, categories },
    };
  });
}

export const tokenizer = Tokenizer.fromFiles({
  tokenizerJson: trainBpe(
    conversations(40, 1).flatMap(({ turns, judge }) => [
      buildGuardPrompt(policy, turns, judge),
      "safe",
      "unsafe\nS1,S2",
    ]),
    { vocabSize: 380, specialTokens: ["<end>"] },
  ),
  tokenizerConfig: { bos_token: "<end>", eos_token: "<end>" },
});

export const codec = new GuardCodec(policy, tokenizer);

export const json = {
  model_type: "llama",
  vocab_size: tokenizer.vocabSize,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};

/** A guard that has learned nothing. */
export function guardModel(seed: number, changes: object = {}) {
  const config = decoderConfig({ ...json, ...changes });
  return { config, weights: initDecoder(config, new Rng(seed)) };
}
