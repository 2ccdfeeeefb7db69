/** Perplexity, task harness and comparisons of models. Tasks in files and generated programs are in `pare/evaluate/node`. */
export * from "./bootstrap.ts";
export * from "./compare.ts";
export * from "./decode-speed.ts";
export * from "./decoder-scorer.ts";
export * from "./errors.ts";
export * from "./kick/index.ts";
export * from "./likelihood.ts";
export * from "./pass-at-k.ts";
export * from "./perplexity.ts";
export * from "./python.ts";
export * from "./scorer.ts";
export * from "./tasks/evaluate-document.ts";
export * from "./tasks/few-shot.ts";
export * from "./tasks/metrics.ts";
export * from "./tasks/run.ts";
export * from "./tasks/task.ts";
export * from "./tasks/template.ts";
