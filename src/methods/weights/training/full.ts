import type { TrainingMethod } from "./method.ts";

/** Every parameter is trained. */
export function fullTraining(): TrainingMethod {
  return { name: "full", rate: 3e-4, start: async (model) => model, finish: async (model) => model };
}
