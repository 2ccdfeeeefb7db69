/** PARQ: training that ends with weights exactly on a few levels (Jin et al. 2025, arXiv:2503.15748). */
export * from "./aprox.ts";
export * from "./lsbq.ts";
export * from "./optimizer.ts";
export * from "./pack.ts";
export * from "./prox.ts";
export * from "./regularizer.ts";
export * from "./schedule.ts";
