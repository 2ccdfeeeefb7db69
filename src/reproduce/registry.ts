import type { System } from "./system.ts";

/** The systems by id, each loaded when it is asked for. */
export const systems: Readonly<Record<string, () => Promise<System>>> = {
  gptq: async () => (await import("./gptq.ts")).gptq,
};
