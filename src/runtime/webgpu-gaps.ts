import { type Node, staticDim } from "../tensor/index.ts";

/** Channels of a group on either side of a convolution, from the weight `[rows, columns, ...kernel]`. */
function perGroup({ inputs, attrs }: Node): { groups: number; rows: number; columns: number } {
  const groups = (attrs.group as number | undefined) ?? 1;
  return { groups, rows: staticDim(inputs[1]!, 0) / groups, columns: staticDim(inputs[1]!, 1) };
}

/**
 * What onnxruntime 1.30's WebGPU kernels refuse when they run, or get wrong without a word. What they lack altogether
 * onnxruntime itself gives to the CPU.
 */
const gaps: Readonly<Record<string, (node: Node) => boolean>> = {
  // Vectors of four output channels reach over the border of a group.
  Conv: (node) => {
    const { groups, rows } = perGroup(node);
    return groups > 1 && rows > 4 && rows % 4 !== 0;
  },
  // With one output channel a group, all groups but the first read wrong weights. Three spatial axes are refused.
  ConvTranspose: (node) => {
    const { groups, rows, columns } = perGroup(node);
    return node.inputs[0]!.rank > 4 || (groups > 1 && rows > 1 && columns === 1);
  },
  MaxPool: (node) => node.outputs.length > 1,
  Resize: (node) => node.attrs.antialias === 1,
};

/** Whether a node has to run on the CPU beside a GPU that runs the rest. */
export function lacksWebGpuKernel(node: Node): boolean {
  return gaps[node.op]?.(node) ?? false;
}
