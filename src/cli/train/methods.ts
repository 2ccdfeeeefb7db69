import {
  blockTraining,
  fullTraining,
  type LevelBits,
  loraTraining,
  type ParetoBits,
  paretoqTraining,
  parqTraining,
  type QuestBits,
  qloraTraining,
  questTraining,
  roloraTraining,
  spectralTraining,
  type TrainingMethod,
} from "../../methods/index.ts";
import { UsageError } from "../errors.ts";
import { flagName } from "../parse.ts";

/** Ways to train, by the name that `--method` takes. */
export const trainingMethods = [
  "full",
  "lora",
  "pissa",
  "milora",
  "qlora",
  "qat",
  "parq",
  "paretoq",
  "quest",
  "rolora",
] as const;
export type TrainingMethodName = (typeof trainingMethods)[number];

export interface MethodOptions {
  readonly method: TrainingMethodName;
  readonly bits: number | undefined;
  /** Of inputs. */
  readonly inputBits: number | undefined;
  readonly block: number | "channel" | undefined;
  readonly rank: number | undefined;
  readonly alpha: number | undefined;
  readonly seed: number;
}

/** Which options a method has use for. */
const uses: Readonly<Record<TrainingMethodName, readonly (keyof MethodOptions)[]>> = {
  full: [],
  lora: ["rank", "alpha"],
  pissa: ["rank"],
  milora: ["rank"],
  qlora: ["rank", "alpha", "bits", "block"],
  qat: ["bits", "block"],
  parq: ["bits"],
  paretoq: ["bits"],
  quest: ["bits", "inputBits"],
  rolora: ["rank", "alpha", "bits", "inputBits"],
};

const gaussian: Readonly<Record<number, QuestBits>> = { 1: 1, 2: 2, 3: 3, 4: 4, 8: 8 };
const whole = { 8: "int8", 4: "int4", 3: "int3", 2: "int2" } as const;

/** The method that a user asks for. @throws UsageError for options that it has no use for, or bits that it does not know */
export function trainingMethod(options: MethodOptions): TrainingMethod {
  const { method, bits, inputBits = bits ?? 4, block, rank = 8, alpha, seed } = options;
  for (const name of ["bits", "inputBits", "block", "rank", "alpha"] as const)
    if (options[name] !== undefined && !uses[method].includes(name)) {
      const others = trainingMethods.filter((other) => uses[other].includes(name));
      throw new UsageError(`--${flagName(name)} means nothing to ${method}, but to ${others.join(", ")}`);
    }
  const adapters = { rank, alpha, seed };
  switch (method) {
    case "full":
      return fullTraining();
    case "lora":
      return loraTraining(adapters);
    case "pissa":
    case "milora":
      return spectralTraining(method, rank);
    case "qlora":
      if (block === "channel") throw new UsageError("qlora rounds blocks; --block takes a multiple of 16 here");
      return qloraTraining({ ...adapters, format: oneOf(method, whole, bits ?? 4), block: block ?? 32 });
    case "qat":
      return blockTraining(oneOf(method, whole, bits ?? 4), block ?? 32);
    case "parq":
      return parqTraining(oneOf<LevelBits>(method, { 1: 1, 1.58: 0, 2: 2, 3: 3, 4: 4 }, bits ?? 2));
    case "paretoq":
      return paretoqTraining(oneOf<ParetoBits>(method, { 1: 1, 1.58: 1.58, 2: 2, 3: 3, 4: 4 }, bits ?? 2));
    case "quest":
      return questTraining({
        weightBits: oneOf(method, gaussian, bits ?? 4),
        inputBits: oneOf(`${method}'s inputs:`, { ...gaussian, 16: 16 }, inputBits),
      });
    case "rolora": {
      const rounded = { 2: 2, 3: 3, 4: 4, 6: 6, 8: 8 };
      const inputs = oneOf(`${method}'s inputs:`, { ...rounded, 16: 16 }, inputBits);
      const both = { weights: oneOf(method, rounded, bits ?? 4), inputs };
      return roloraTraining({ ...adapters, ...(inputs !== 16 && { bits: both }) });
    }
  }
}

function oneOf<T>(method: string, known: Readonly<Record<number, T>>, bits: number): T {
  const found = known[bits];
  if (found !== undefined) return found;
  const all = Object.keys(known)
    .map(Number)
    .sort((a, b) => a - b);
  throw new UsageError(`${method} trains weights of ${all.join(", ")} bits, not ${bits}`);
}
