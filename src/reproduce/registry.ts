import type { System } from "./system.ts";

/** The systems by id, each loaded when it is asked for. */
export const systems: Readonly<Record<string, () => Promise<System>>> = {
  awq: async () => (await import("./awq.ts")).awq,
  gptq: async () => (await import("./gptq.ts")).gptq,
  "llama-guard-int4": async () => (await import("./llama-guard-int4/llama-guard-int4.ts")).llamaGuardInt4,
  "llm-kick": async () => (await import("./llm-kick.ts")).llmKick,
  "mobilellm-flash": async () => (await import("./mobilellm-flash/mobilellm-flash.ts")).mobileLlmFlash,
  paramdelta: async () => (await import("./paramdelta/paramdelta.ts")).paramdelta,
  paretoq: async () => (await import("./paretoq/paretoq.ts")).paretoq,
  parq: async () => (await import("./parq/parq.ts")).parq,
  quarot: async () => (await import("./quarot.ts")).quarot,
  quest: async () => (await import("./quest/quest.ts")).quest,
  rolora: async () => (await import("./rolora.ts")).rolora,
  "rlvr-three-gate": async () => (await import("./rlvr-three-gate/index.ts")).rlvrThreeGate,
  smoothquant: async () => (await import("./smoothquant.ts")).smoothquant,
  sparsegpt: async () => (await import("./sparsegpt.ts")).sparsegpt,
  "svd-llm": async () => (await import("./svd.ts")).svdLlm,
  wanda: async () => (await import("./wanda.ts")).wanda,
};
