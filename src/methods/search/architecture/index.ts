/** Latency-guided search for the shape of a decoder: spaces, latency on this device, candidates of a backbone. */
export * from "./architecture.ts";
export * from "./candidate.ts";
export * from "./clock.ts";
export * from "./latency-model.ts";
export * from "./probe.ts";
export * from "./search.ts";
export * from "./timings.ts";
