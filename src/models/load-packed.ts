import { FormatError } from "../formats/errors.ts";
import { isJsonObject, type JsonObject } from "../formats/json.ts";
import type { TensorFile, TensorInfo } from "../formats/tensor-file.ts";
import { fromPackQuantized, type PackedTensors } from "../nn/index.ts";
import { type HostTensor, input } from "../tensor/index.ts";
import { ModelError } from "./errors.ts";
import { blocksOf, inFile, plainWeight, type StoredWeight } from "./load-stored.ts";

/*
 * Weights under the `pack-quantized` convention of the compressed-tensors format: a matrix `x.weight` lies in the file
 * as `x.weight_packed` and its fellows.
 */

const required = ["weight_packed", "weight_scale", "weight_shape"] as const;
const optional = "weight_zero_point";

/**
 * The weights of a file of that format, packed and plain.
 * @param quantization the `quantization_config` of config.json
 * @throws ModelError for what pare cannot read; FormatError where tensors are missing or do not fit together
 */
export async function packedWeights(
  quantization: JsonObject,
  file: TensorFile,
  infos: ReadonlyMap<string, TensorInfo>,
): Promise<Map<string, StoredWeight>> {
  const { bits, symmetric } = schemeOf(quantization, file);
  const weights = new Map<string, StoredWeight>();
  const used = new Set<string>();
  for (const name of infos.keys()) {
    if (name.endsWith(".weight_g_idx"))
      throw new ModelError(
        `${file.name}: "${name}" reorders columns by activation (act-order), which pare cannot read; pack the model without it`,
      );
    if (!name.endsWith(`.${required[0]}`)) continue;
    const module = name.slice(0, -required[0].length - 1);
    const parts = [...required, ...(symmetric ? [] : [optional])].map((part) => `${module}.${part}`);
    const missing = parts.find((part) => !infos.has(part));
    if (missing !== undefined) throw new FormatError(`${file.name}: it has "${name}" but no "${missing}"`);
    for (const part of parts) used.add(part);
    const shape = await shapeIn(file, infos.get(`${module}.weight_shape`)!);
    const read = async () => {
      const tensors: Record<string, HostTensor> = {};
      for (const part of parts) tensors[part.slice(module.length + 1)] = await file.read(part);
      return inFile(file, () => fromPackQuantized(tensors as unknown as PackedTensors, bits));
    };
    const outline = input(name, { dtype: "f32", shape });
    const block = shape[1]! / (infos.get(`${module}.weight_scale`)!.shape[1] ?? 1);
    weights.set(`${module}.weight`, {
      outline,
      representation: blocksOf({ format: `int${bits}`, block }),
      parts,
      read,
      tensor: (part) => file.read(part),
    });
  }
  for (const [name, info] of infos) if (!used.has(name)) weights.set(name, plainWeight(info, file));
  return weights;
}

/** What all packed matrices of the model have in common. */
function schemeOf({ format, config_groups: groups }: JsonObject, { name: where }: TensorFile) {
  const refuse = (what: string): ModelError =>
    new ModelError(`${where}: the compressed-tensors of config.json ${what}, which pare cannot read`);
  if (format !== "pack-quantized") throw refuse(`are in the format ${JSON.stringify(format)}, not "pack-quantized"`);
  const schemes = Object.values(isJsonObject(groups) ? groups : {}).map((group) => {
    const { weights, input_activations: activations } = isJsonObject(group) ? group : {};
    if ((activations ?? null) !== null) throw refuse("round activations too");
    const { num_bits: bits, type, symmetric = true } = isJsonObject(weights) ? weights : {};
    if ((bits !== 4 && bits !== 8) || type !== "int" || typeof symmetric !== "boolean")
      throw refuse(`hold weights of ${JSON.stringify(bits)} bits and type ${JSON.stringify(type)}`);
    return { bits: bits as 4 | 8, symmetric };
  });
  const [first] = schemes;
  if (!first) throw refuse("have no config_groups");
  if (schemes.some(({ bits, symmetric }) => bits !== first.bits || symmetric !== first.symmetric))
    throw refuse("are packed in several ways");
  return first;
}

async function shapeIn(file: TensorFile, { name, shape }: TensorInfo): Promise<number[]> {
  const sizes = shape.join() === "2" ? (await file.read(name)).toArray() : [];
  if (sizes.length !== 2 || !sizes.every((n) => Number.isSafeInteger(n) && n > 0))
    throw new FormatError(`${file.name}: "${name}" does not hold the two sizes of a matrix`);
  return sizes;
}
