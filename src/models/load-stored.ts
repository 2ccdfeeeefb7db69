import { FormatError } from "../formats/errors.ts";
import { isJsonObject, type JsonObject, parseJson } from "../formats/json.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import { ShardedSafetensors } from "../formats/safetensors-shards.ts";
import type { TensorFile, TensorInfo } from "../formats/tensor-file.ts";
import { BlockWeight, restoreWeights, Weight } from "../nn/index.ts";
import {
  ArgumentError,
  type HostTensor,
  input,
  inputName,
  isFloat,
  isHostTensor,
  isTensor,
  type Leaf,
  leavesOf,
  PareError,
  type Tensor,
} from "../tensor/index.ts";
import type { Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";

/** A weight in a file whose numbers have not been read. */
export interface StoredWeight {
  /** What it will be, with symbolic tensors instead of numbers; of a weight in memory the weight itself. */
  readonly outline: Weight | Leaf;
  /** How it is represented: `dense`, `int4 blocks of 32`, `low-rank`. */
  readonly representation: string;
  /** Names of the file's tensors that it consists of. */
  readonly parts: readonly string[];
  /** Its numbers as they are stored. @throws FormatError, FileError */
  read(): Promise<Weight | HostTensor>;
  /** One of its parts. */
  tensor(part: string): Promise<HostTensor>;
}

/** Weights by name, to be read one by one. */
export type StoredWeights = ReadonlyMap<string, StoredWeight>;

/** What the weights are, without their numbers. */
export function outlinesOf(stored: StoredWeights): Record<string, Weight | Leaf> {
  return Object.fromEntries(Array.from(stored, ([name, { outline }]) => [name, outline]));
}

/** Weights in memory as stored ones, or those that are stored already. */
export function asStored(weights: Weights | StoredWeights): StoredWeights {
  if (weights instanceof Map) return weights as StoredWeights;
  return new Map(Object.entries(weights as Weights).map(([name, weight]) => [name, inMemory(name, weight)]));
}

function inMemory(name: string, outline: Weight | Leaf): StoredWeight {
  if (isTensor(outline)) throw new ArgumentError(`"${name}" is symbolic; only weights with their numbers can be saved`);
  const representation = outline instanceof Weight ? outline.kind : "dense";
  const absent = (): never => {
    throw new ArgumentError(`"${name}" is in memory and has no parts in a file`);
  };
  return { outline, representation, parts: [name], read: async () => outline, tensor: absent };
}

/** The numbers of a tensor of a weight's outline. */
export async function numbersIn(stored: StoredWeight, leaf: Leaf): Promise<HostTensor> {
  return isHostTensor(leaf) ? leaf : await stored.tensor(inputName(leaf)!);
}

/** Key of a safetensors file's metadata under which `saveModel` describes weights that are not dense, as JSON. */
export const descriptionKey = "pare.weights";

/** What a file says of weights that are not dense; undefined where it says nothing. @throws FormatError */
export function descriptionIn(file: TensorFile): JsonObject | undefined {
  if (!(file instanceof SafetensorsFile || file instanceof ShardedSafetensors)) return undefined;
  const text = file.metadata.get(descriptionKey);
  if (text === undefined) return undefined;
  const where = `${file.name}, ${descriptionKey}`;
  const description = parseJson(text, where);
  if (!isJsonObject(description)) throw new FormatError(`${where}: it describes no weights by name`);
  return description;
}

/**
 * The weights of a file by name, those that its description speaks of in their representation.
 * @throws ModelError for plain tensors that are not floating-point; FormatError for a description that does not fit
 */
export function describedWeights(
  file: TensorFile,
  infos: ReadonlyMap<string, TensorInfo>,
  description: JsonObject = descriptionIn(file) ?? {},
): Map<string, StoredWeight> {
  const symbols = Object.fromEntries(Array.from(infos, ([name, info]) => [name, symbolOf(info, file)]));
  const outlines = inFile(file, () => restoreWeights(description, symbols));
  return new Map(
    Object.entries(outlines).map(([name, outline]) => {
      if (!(outline instanceof Weight)) return [name, plainWeight(infos.get(name)!, file)];
      const parts = leavesOf(outline, isTensor).map(({ leaf }) => inputName(leaf)!);
      const read = async (): Promise<Weight | HostTensor> => {
        const tensors: Record<string, HostTensor> = {};
        for (const part of parts) tensors[part] = await file.read(part);
        return inFile(file, () => restoreWeights({ [name]: description[name] }, tensors)[name]!);
      };
      const representation = outline instanceof BlockWeight ? blocksOf(outline) : outline.kind;
      return [name, { outline, representation, parts, read, tensor: (part) => file.read(part) }];
    }),
  );
}

/** A weight that is one tensor of floating point. @throws ModelError for other types */
export function plainWeight(info: TensorInfo, file: TensorFile): StoredWeight {
  const { name, dtype } = info;
  if (!(dtype && isFloat(dtype))) throw unusable(info, file);
  const read = (): Promise<HostTensor> => file.read(name);
  return { outline: symbolOf(info, file), representation: "dense", parts: [name], read, tensor: read };
}

/** How blocks are called in reports. */
export const blocksOf = ({ format, block }: Pick<BlockWeight, "format" | "block">): string =>
  `${format} blocks of ${block}`;

function symbolOf(info: TensorInfo, file: TensorFile): Tensor {
  const { name, dtype, shape } = info;
  if (!dtype) throw unusable(info, file);
  return input(name, { dtype, shape });
}

function unusable({ name, type }: TensorInfo, file: TensorFile): ModelError {
  return new ModelError(`${file.name}: "${name}" is of type ${type}; weights of floating point can be used`);
}

/** What does not fit together within a file is the file's fault, so its name stands before what is wrong. */
export function inFile<T>(file: TensorFile, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof PareError)) throw error;
    throw new FormatError(`${file.name}: ${error.message}`, { cause: error });
  }
}
