/** ParetoQ: one recipe of training for 1 to 4 bits, and what each bit-width costs (Liu et al. 2025, arXiv:2502.02631). */
export * from "./convert.ts";
export * from "./report.ts";
export * from "./train.ts";
