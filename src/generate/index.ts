/** Text generation: sampling, cached decoding, streaming. */
export * from "./candidates.ts";
export * from "./errors.ts";
export * from "./generate.ts";
export * from "./penalties.ts";
export * from "./sampler.ts";
export * from "./session.ts";
export * from "./stop.ts";
