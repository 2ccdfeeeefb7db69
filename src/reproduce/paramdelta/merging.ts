import { encodeSafetensors, memorySource, SafetensorsFile, type TensorFile } from "../../formats/index.ts";
import { addition, Merge, type MergeReport } from "../../methods/index.ts";
import { denseTensors, type Weights } from "../../models/index.ts";
import { Dense } from "../../nn/index.ts";
import { HostTensor, type Rng } from "../../tensor/index.ts";

export interface Transfer {
  readonly weights: Weights;
  readonly report: MergeReport;
}

/** What post-training added to `base`, times `weight`, on `start`. */
export async function transferred(base: Weights, post: Weights, start: Weights, weight: number): Promise<Transfer> {
  const merge = new Merge(
    {
      start: await inMemory("new base", start),
      base: await inMemory("base", base),
      models: [{ name: "post-trained", file: await inMemory("post-trained", post), weight }],
    },
    addition,
  );
  const weights: Record<string, Dense | HostTensor> = {};
  for (const { name, load } of merge.tensors) weights[name] = asMatrix(await load());
  return { weights, report: merge.report() };
}

/** Tensors with two axes are matrices. */
export function asMatrix(tensor: HostTensor): Dense | HostTensor {
  return tensor.shape.length === 2 ? new Dense(tensor) : tensor;
}

async function inMemory(name: string, weights: Weights): Promise<TensorFile> {
  return await SafetensorsFile.open(memorySource(await encodeSafetensors(denseTensors(weights)), name));
}

/** How many tensors are not the same bit by bit. */
export function changed(a: Weights, b: Weights): number {
  const others = denseTensors(b);
  const same = (x: Uint8Array, y: Uint8Array): boolean => x.every((byte, i) => byte === y[i]);
  return [...denseTensors(a)].filter(([name, tensor]) => !same(tensor.rawBytes(), others.get(name)!.rawBytes())).length;
}

/** The same function with the channels of the residual stream in another order: near to it in no tensor. */
export function shuffledChannels(weights: Weights, dim: number, rng: Rng): Weights {
  const order = rng.permutation(dim);
  const writes = /(o_proj|down_proj)\.weight$/;
  return Object.fromEntries(
    Array.from(denseTensors(weights), ([name, tensor]) => {
      const [rows, columns] = tensor.shape.length === 2 ? (tensor.shape as [number, number]) : [1, tensor.size];
      const moved = HostTensor.zeros("f32", tensor.shape);
      const [from, to] = [tensor.data as Float32Array, moved.data as Float32Array];
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
          const source = writes.test(name) ? order[row]! * columns + column : row * columns + order[column]!;
          to[row * columns + column] = from[source]!;
        }
      return [name, asMatrix(moved)];
    }),
  );
}
