import type { TensorFile } from "../../formats/index.ts";
import { describedWeights, descriptionIn, type StoredWeight } from "../../models/index.ts";
import type { Weight } from "../../nn/index.ts";
import type { HostTensor } from "../../tensor/index.ts";

/** A tensor, or a weight that consists of several. */
export interface Item {
  readonly name: string;
  /** Element type in the file's own terms, or how the weight is represented. */
  readonly type: string;
  readonly shape: readonly number[];
  /** Bytes that it takes in the file. */
  readonly bytes: number;
  /** Its numbers; undefined for types that can be listed only. */
  readonly read?: () => Promise<Weight | HostTensor>;
}

/** What lies in a file or folder. It is open, for items to be read, until it is disposed of. */
export interface Contents extends AsyncDisposable {
  /** What it is: `GGUF`, `safetensors`. */
  readonly format: string;
  /** Its architecture and the numbers of that, or what else its header says. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  readonly items: readonly Item[];
  /** What is worth knowing. */
  readonly notes: readonly string[];
  /** What is wrong with it. */
  readonly problems: readonly string[];
}

/** The tensors of a file one by one. */
export function tensorItems(file: TensorFile): Item[] {
  return Array.from(file.tensors.values(), ({ name, type, dtype, shape, bytes }) => ({
    name,
    type,
    shape,
    bytes,
    ...(dtype && { read: () => file.read(name) }),
  }));
}

/** The weights that the tensors of a file make up. */
export function weightItems(file: TensorFile, weights: ReadonlyMap<string, StoredWeight>): Item[] {
  return Array.from(weights, ([name, { outline, representation, parts, read }]) => {
    const infos = parts.map((part) => file.tensors.get(part)!);
    return {
      name,
      type: representation === "dense" ? infos[0]!.type : representation,
      shape: outline.shape as readonly number[],
      bytes: infos.reduce((sum, { bytes }) => sum + bytes, 0),
      read,
    };
  });
}

/** The tensors of a safetensors file, or the weights that it describes. @throws FormatError for a description that does not fit */
export function describedItems(file: TensorFile): Item[] {
  return descriptionIn(file) ? weightItems(file, describedWeights(file, file.tensors)) : tensorItems(file);
}
