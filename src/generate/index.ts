/** Text generation: sampling, cached decoding, batches, streaming. */
export type { DecoderBatch } from "./batch.ts";
export type { CacheFormat } from "./cache.ts";
export * from "./candidates.ts";
export type { GeneratedToken, GenerateOptions, Generation, GenerationTokenizer } from "./continuation.ts";
export * from "./errors.ts";
export { complete, generate } from "./generate.ts";
export * from "./generate-batch.ts";
export * from "./logprobs.ts";
export * from "./penalties.ts";
export * from "./sampler.ts";
export * from "./session.ts";
export * from "./stop.ts";
