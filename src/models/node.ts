/** Models on disk and on the hub. */
export * from "./compressed-tensors.node.ts";
export * from "./embedded.node.ts";
export {
  type OpenModel,
  type OpenOptions,
  type OpenTensors,
  type OutlinedModel,
  openModel,
  openTensors,
  outlineModel,
  type SavedModel,
  saveModel,
} from "./load.node.ts";
export * from "./onnx-export.node.ts";
