import { expect, it } from "vitest";
import { DecoderSession } from "../../src/generate/index.ts";
import { cacheEffect, type Subject } from "../../src/report/index.ts";
import { tinyModel } from "../generate/models.ts";

const device = { threads: 1 };
const model = tinyModel();
const subject: Subject = { name: "tiny", ...model, tokenizer: null as never };
const tokens = Array.from({ length: 24 }, (_, i) => (i * 7) % model.config.vocab);

it("measures what a cache in 8 bits changes", async () => {
  const effect = await cacheEffect(subject, tokens, { ...device, limit: 20 });
  expect(effect.tokens).toBe(20);
  // Both are rounded from the same predictions, so that little changes, but something does.
  expect(Math.abs(effect.perplexity.int8 / effect.perplexity.f32 - 1)).toBeLessThan(0.03);
  expect(effect.kl).toBeGreaterThan(0);
  expect(effect.kl).toBeLessThan(1e-2);
  expect(effect.topAgreement).toBeGreaterThan(0.8);
  // A cache has room for a whole number of tokens.
  for (const cache of ["f32", "int8"] as const) {
    await using session = await DecoderSession.open(model.config, model.weights, { ...device, cache });
    await session.advance(tokens);
    expect(session.cacheBytes % effect.bytesPerToken[cache]).toBe(0);
  }
  await using plain = await DecoderSession.open(model.config, model.weights, device);
  let nats = 0;
  for (let i = 0; i < 20; i++) {
    const logits = await plain.advance([tokens[i]!]);
    const total = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
    nats += total - logits[tokens[i + 1]!]!;
  }
  expect(effect.perplexity.f32).toBeCloseTo(Math.exp(nats / 20), 3);
});

it("takes two tokens at least", async () => {
  await expect(cacheEffect(subject, [1], device)).rejects.toThrow("shows on two tokens or more");
});
