/** What perplexity hides about a compressed model: knowledge, retrieval, summaries, instructions (Jaiswal et al. 2024). */
export * from "./answers.ts";
export * from "./compressors.ts";
export * from "./judge.ts";
export * from "./judges.ts";
export * from "./kick.ts";
export * from "./reader.ts";
export * from "./report.ts";
export * from "./task.ts";
export * from "./tasks/factoid.ts";
export * from "./tasks/instruct.ts";
export * from "./tasks/mcq.ts";
export * from "./tasks/passages.ts";
export * from "./tasks/repetition.ts";
export * from "./tasks/retrieval.ts";
export * from "./tasks/summary.ts";
