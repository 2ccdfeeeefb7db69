/** Search for the best trade-offs under few and costly evaluations: fronts, Gaussian processes, expected improvement. */
export * from "./architecture/index.ts";
export * from "./draws.ts";
export * from "./gaussian-process.ts";
export * from "./improvement.ts";
export * from "./kernel.ts";
export * from "./pareto.ts";
export * from "./rank-correlation.ts";
