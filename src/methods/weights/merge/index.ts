/** Merging checkpoints: ParamDelta, task arithmetic, TIES, DARE, SLERP and averages, tensor by tensor. */
export type { Conflicts, Pair as ConflictPair, UpdateSize } from "./conflicts.ts";
export { applyDelta, baseOfDelta, type Delta, type DeltaFile, extractDelta, tensorsFingerprint } from "./delta.ts";
export {
  averaged,
  Merge,
  type MergedModel,
  type MergeInputs,
  type MergeOptions,
  type MergeProgress,
  type MergeReport,
  vocabularyTables,
} from "./merge.ts";
export {
  type Block as TensorBlock,
  type Change as TensorChange,
  type Mergeable,
  type Piece as TensorPiece,
  TensorPieces,
  type TensorVersion,
  type TensorVersions,
  versionIn,
} from "./pieces.ts";
export {
  addition,
  type DareOptions,
  dare,
  type MergeRule,
  type PieceMerger,
  slerp,
  type TiesOptions,
  ties,
} from "./rules.ts";
export { alphaSweep, type TransferEfficiency, transferEfficiency } from "./transfer.ts";
export * from "./vocabulary.ts";
