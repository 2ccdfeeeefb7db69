import { type CacheFormat, DecoderSession } from "../generate/index.ts";
import type { DeviceOptions } from "../runtime/index.ts";
import { ArgumentError } from "../tensor/index.ts";
import type { Subject } from "./measure.ts";
import type { CacheEffect } from "./report.ts";

export interface CacheOptions extends DeviceOptions {
  /** Tokens to read at most; each takes a step of the model, twice. Default 256. */
  readonly limit?: number;
  readonly signal?: AbortSignal;
}

/**
 * Reads a text token by token, as generation does, with keys and values as they are and in 8 bits, and compares what the
 * model predicts.
 * @param tokens the first is only read
 * @throws ArgumentError for fewer than two tokens; the signal's reason
 */
export async function cacheEffect(
  { name, config, weights }: Subject,
  tokens: readonly number[],
  { limit = 256, signal, ...device }: CacheOptions = {},
): Promise<CacheEffect> {
  const ids = tokens.slice(0, Math.min(limit + 1, config.maxPositions));
  if (ids.length < 2) throw new ArgumentError("the effect of a cache shows on two tokens or more");
  const count = ids.length - 1;
  const read = async (cache: CacheFormat, visit: (logits: Float32Array, i: number) => void): Promise<void> => {
    await using session = await DecoderSession.open(config, weights, { ...device, cache });
    for (let i = 0; i < count; i++) visit(await session.advance([ids[i]!], { signal }), i);
  };
  // One after the other: each session has the weights in memory.
  const plain: Float32Array[] = [];
  await read("f32", (logits) => plain.push(logits));
  const nats = { f32: 0, int8: 0 };
  let [kl, agreed] = [0, 0];
  await read("int8", (logits, i) => {
    const [p, q] = [logProbs(plain[i]!), logProbs(logits)];
    nats.f32 -= p[ids[i + 1]!]!;
    nats.int8 -= q[ids[i + 1]!]!;
    kl += p.reduce((sum, a, token) => sum + Math.exp(a) * (a - q[token]!), 0);
    if (best(p) === best(q)) agreed++;
  });
  const { layers, kvHeads, headDim } = config;
  const numbers = 2 * layers * kvHeads * headDim;
  return {
    variant: name,
    tokens: count,
    // In 8 bits with a scale in single precision for each head.
    bytesPerToken: { f32: 4 * numbers, int8: numbers + (4 * numbers) / headDim },
    perplexity: { f32: Math.exp(nats.f32 / count), int8: Math.exp(nats.int8 / count) },
    kl: Math.max(0, kl / count),
    topAgreement: agreed / count,
  };
}

function logProbs(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const total = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return Float64Array.from(logits, (x) => x - total);
}

function best(values: Float64Array): number {
  return values.reduce((at, value, i) => (value > values[at]! ? i : at), 0);
}
