import type { LowerOptions } from "../onnx/index.ts";
import { findOp, type Node } from "../tensor/index.ts";

/*
 * What the kernels of onnxruntime 1.30 for WebGPU lack. An operation without a kernel runs on the CPU, and its inputs
 * and results travel there and back, unless it can be put together from others.
 */

/** Operations outside of the standard that do have a (right) kernel. */
const KERNELS = new Set(["com.microsoft.MatMulNBits", "com.microsoft.QuickGelu", "com.microsoft.RotaryEmbedding"]);
/** Operations of the standard without one. */
const WITHOUT = new Set(["Celu", "LogSoftmax", "Selu", "Softsign", "SpaceToDepth"]);

/** How to lower a graph for a GPU. */
export const forWebGpu: LowerOptions = {
  portable: true,
  expands: ({ op }) =>
    op.startsWith("com.microsoft.") ? !KERNELS.has(op) : WITHOUT.has(op) || findOp(op)!.nonstandard === true,
};

/** Channels of a group on either side of a convolution, from its weight `[rows, columns, ...kernel]`; NaN for a name. */
function perGroup({ inputs, attrs }: Node): { groups: number; rows: number; columns: number } {
  const groups = (attrs.group as number | undefined) ?? 1;
  const [rows, columns] = inputs[1]!.shape.map(Number) as [number, number];
  return { groups, rows: rows / groups, columns };
}

/** What kernels refuse when they run, or compute wrongly. */
const faults: Readonly<Record<string, (node: Node) => boolean>> = {
  // Vectors of four output channels reach over the border of a group.
  Conv: (node) => {
    const { groups, rows } = perGroup(node);
    return groups > 1 && rows > 4 && rows % 4 !== 0;
  },
  // Wrong with several input channels and one output channel a group; three spatial axes are refused.
  ConvTranspose: (node) => {
    const { groups, rows, columns } = perGroup(node);
    return node.inputs[0]!.rank > 4 || (groups > 1 && rows > 1 && columns === 1);
  },
  MaxPool: ({ outputs }) => outputs.length > 1,
  Resize: ({ attrs }) => attrs.antialias === 1,
};

/** Whether a node has to run on the CPU beside a GPU that runs the rest. */
export function needsCpu(node: Node): boolean {
  return faults[node.op]?.(node) ?? false;
}
