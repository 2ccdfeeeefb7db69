import type { TensorFile, TensorInfo } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";
import { type OpenTensors, openTensors } from "../../../models/node.ts";
import { ArgumentError, formatShape, sameShape } from "../../../tensor/index.ts";
import {
  type AnalyzeOptions,
  analyzeUpdates,
  type MatrixPair,
  type MatrixUpdate,
  type UpdateReport,
} from "./analyze.ts";

/** Element types that are plain numbers in a file. */
const PLAIN: ReadonlySet<string> = new Set(["F64", "F32", "F16", "BF16"]);
const LISTED = 6;

export interface CheckpointOptions extends AnalyzeOptions {
  /** Which matrices to look at, by name. Default all of the layers. */
  readonly matrices?: RegExp;
}

/**
 * What training changed between two checkpoints of one model: folders, files or names on the hub, in any format that
 * pare opens, also in different ones. Matrices are read in pairs, one after the other.
 * @throws ModelError for checkpoints of different architectures, packed ones and adapters; ArgumentError as
 *   `analyzeUpdates`; FileError, HubError, FormatError from reading
 */
export async function analyzeUpdate(
  before: string,
  after: string,
  { matrices = /^/, ...options }: CheckpointOptions = {},
  onMatrix?: (update: MatrixUpdate, index: number, count: number) => void,
): Promise<UpdateReport> {
  await using a = await openTensors(before);
  await using b = await openTensors(after);
  const names = commonMatrices(before, a, after, b).filter((name) => matrices.test(name));
  if (names.length === 0)
    throw new ArgumentError(`no matrix of a layer has a name that ${matrices} matches; pare inspect lists them`);
  let done = 0;
  return await analyzeUpdates(pairsOf(a.tensors, b.tensors, names), options, (update) =>
    onMatrix?.(update, ++done, names.length),
  );
}

async function* pairsOf(a: TensorFile, b: TensorFile, names: readonly string[]): AsyncGenerator<MatrixPair> {
  for (const name of names) yield { name, before: await a.read(name), after: await b.read(name) };
}

/** Names of the layers' matrices, which both checkpoints have in the same shapes. */
function commonMatrices(before: string, a: OpenTensors, after: string, b: OpenTensors): string[] {
  const [mine, others] = [matricesOf(before, a), matricesOf(after, b)];
  const differences = [...new Set([...mine.keys(), ...others.keys()])].flatMap((name) => {
    const [one, other] = [mine.get(name), others.get(name)];
    if (one && other && sameShape(one.shape, other.shape)) return [];
    const described = (info: TensorInfo | undefined): string => (info ? formatShape(info.shape) : "missing");
    return [`"${name}" is ${described(one)} in ${before} and ${described(other)} in ${after}`];
  });
  if (differences.length > 0) {
    const rest = differences.length - LISTED;
    throw new ModelError(
      `the checkpoints are of different architectures: ${differences.slice(0, LISTED).join("; ")}${rest > 0 ? `; and ${rest} more` : ""}`,
    );
  }
  return [...mine.keys()];
}

function matricesOf(place: string, { json, tensors, description }: OpenTensors): Map<string, TensorInfo> {
  const infos = [...tensors.tensors.values()];
  if (infos.some(({ name }) => /\.lora_[AB]\./.test(name)))
    throw new ModelError(
      `${place} is an adapter (LoRA), not a model; merge it into its base first, in Python with peft's merge_and_unload()`,
    );
  if (json["quantization_config"] !== undefined || description)
    throw new ModelError(
      `${place} is packed: which of its entries training changed cannot be told from codes; give the checkpoint that it was made from`,
    );
  const matrices = infos.filter(({ name, shape }) => shape.length === 2 && /\.\d+\..*\.weight$/.test(name));
  const packed = matrices.find(({ type }) => !PLAIN.has(type));
  if (packed)
    throw new ModelError(
      `"${packed.name}" of ${place} is of type ${packed.type}: which of its entries training changed cannot be told from packed numbers; give a checkpoint in F32, F16 or BF16`,
    );
  if (matrices.length === 0) throw new ModelError(`${place} has no matrices of layers`);
  return new Map(matrices.map((info) => [info.name, info]));
}
