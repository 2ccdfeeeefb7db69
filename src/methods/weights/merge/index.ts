/** Merging checkpoints: ParamDelta, task arithmetic, TIES, DARE, SLERP and averages, tensor by tensor. */
export type { Conflicts, Pair as ConflictPair, UpdateSize } from "./conflicts.ts";
export * from "./merge.ts";
export {
  addition,
  type DareOptions,
  dare,
  type MergeRule,
  slerp,
  type TensorChange,
  type TiesOptions,
  ties,
} from "./rules.ts";
export * from "./vocabulary.ts";
