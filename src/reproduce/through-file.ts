import { encodeSafetensors, memorySource, readTensors, SafetensorsFile } from "../formats/index.ts";
import { restoreWeights, storeWeights, type Weight } from "../nn/index.ts";
import type { HostTensor, Leaf } from "../tensor/index.ts";

const KEY = "pare.weights";

/** Weights as they are when they have been saved as a safetensors file and read again, and the file's size. */
export async function throughFile(
  weights: Readonly<Record<string, Weight | Leaf>>,
): Promise<{ readonly weights: Record<string, Weight | HostTensor>; readonly bytes: number }> {
  const { tensors, description } = storeWeights(weights);
  const metadata = new Map([[KEY, JSON.stringify(description)]]);
  const bytes = await encodeSafetensors(Object.entries(tensors), metadata);
  const file = await SafetensorsFile.open(memorySource(bytes, "the exported model"));
  const read = Object.fromEntries(await readTensors(file));
  return { weights: restoreWeights(JSON.parse(file.metadata.get(KEY)!), read), bytes: bytes.length };
}
