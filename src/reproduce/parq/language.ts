import type { Weights } from "../../models/index.ts";
import { optim } from "../../nn/index.ts";
import { heldOutLoss, smallLanguage, trainLanguage } from "../small-language.ts";
import type { Setting } from "../system.ts";
import type { Task } from "./contest.ts";

/** Training goes on from a small language model in full precision, on the texts that come with pare. */
export async function languageTask(setting: Setting): Promise<Task> {
  const [batch, length, steps, rate] = [8, 64, 160, 1e-3];
  const shape = { vocab: 1024, layers: 2, dim: 64, heads: 4, ffn: 192 };
  const model = await smallLanguage(setting, { ...shape, steps: 720, batch, length });
  return {
    steps,
    rate,
    start: model.weights,
    quantized: (path) => path.includes("_proj."),
    train: (optimizer, what) =>
      trainLanguage(setting, model, { what, steps, batch, length, optimizer, schedule: optim.cosine(rate, steps) }),
    score: async (weights) =>
      -(await heldOutLoss(setting, { ...model, weights: weights as Weights }, { windows: 96, length })),
  };
}
