import type { PendingTensor } from "../../formats/index.ts";
import { BlockWeight, Dense, HalfWeight, Weight } from "../../nn/index.ts";
import { unpackCodes } from "../../nn/weights/block-format.ts";
import { fromHalf, HostTensor, isHostTensor, type Leaf, toHalf } from "../../tensor/index.ts";
import type { Weights } from "../decoder/weights.ts";
import { ModelError } from "../errors.ts";
import type { StoredWeights } from "../load-stored.ts";
import type { PendingEncoded } from "./write.ts";

/** Entries of a row that share a scale in the types of GGUF that blocks can be written as. */
const group = 32;

type BlockType = "Q4_0" | "Q4_1" | "Q8_0";

/**
 * A model's weights for `decoderToGguf`. Half-precision ones and blocks keep their numbers exactly: int4 becomes
 * `Q4_0`, or `Q4_1` with zero points, and int8 `Q8_0`, with the codes that they have. Dense ones get the type that the
 * file's are to have.
 * @throws ModelError naming the first weight that no type of GGUF holds exactly, and what would fit
 */
export function ggufWeights(weights: Weights): (PendingTensor | PendingEncoded)[] {
  return Object.entries(weights).map(([name, weight]) => {
    const type = weight instanceof BlockWeight ? typeOf(name, weight) : null;
    return pendingWeight(name, weight, type, () => weight as Weight | HostTensor);
  });
}

/** As `ggufWeights`; of stored weights one is in memory at a time. @throws as `ggufWeights` */
export async function ggufStored(stored: StoredWeights): Promise<(PendingTensor | PendingEncoded)[]> {
  const pending: (PendingTensor | PendingEncoded)[] = [];
  for (const [name, { outline, read }] of stored) {
    const type = outline instanceof BlockWeight ? typeOf(name, (await read()) as BlockWeight) : null;
    pending.push(pendingWeight(name, outline, type, read));
  }
  return pending;
}

/** @param type of a weight that consists of blocks */
function pendingWeight(
  name: string,
  outline: Weight | Leaf,
  type: BlockType | null,
  read: () => Weight | HostTensor | Promise<Weight | HostTensor>,
): PendingTensor | PendingEncoded {
  const shape = outline.shape as readonly number[];
  if (type) return { name, type, shape, load: async () => encoded((await read()) as BlockWeight, type) };
  const values = valuesOf(outline);
  if (values instanceof Weight)
    throw new ModelError(
      `"${name}" is represented as ${values.kind}; GGUF holds dense weights, half-precision ones, and ${whatFits}`,
    );
  const load = async (): Promise<HostTensor> => {
    const numbers = valuesOf(await read());
    if (isHostTensor(numbers)) return numbers;
    throw new ModelError(`"${name}" is symbolic; only weights with their numbers can be written`);
  };
  if (outline instanceof HalfWeight) return { name, type: values.dtype.toUpperCase(), shape, load };
  return { name, dtype: values.dtype, shape, load };
}

const valuesOf = (weight: Weight | Leaf): Weight | Leaf =>
  weight instanceof Dense || weight instanceof HalfWeight ? weight.values : weight;

const whatFits =
  "blocks of int4 (with or without zero points) or int8 (without) of a multiple of 32 entries with scales in f16, in rows of a multiple of 32";

function typeOf(name: string, weight: BlockWeight): BlockType {
  const { format, block, shape, zeroPoints } = weight;
  const fits = (format === "int4" || (format === "int8" && !zeroPoints)) && block % group === 0;
  if (!fits || shape[1] % group !== 0)
    throw new ModelError(
      `"${name}", whose rows have ${shape[1]} entries, consists of ${format} blocks of ${block}${zeroPoints ? " with zero points" : ""}, which GGUF has no type for; what fits are ${whatFits}`,
    );
  const { scales, offsets } = numbersOf(weight);
  const unfit = [...scales, ...offsets].find((value) => fromHalf(toHalf(value)) !== value);
  if (unfit !== undefined)
    throw new ModelError(
      `"${name}" has a scale or offset of ${unfit}, which half precision does not hold exactly, as GGUF's blocks need; round with scales in f16${zeroPoints ? ", without zero points" : ""}`,
    );
  if (format === "int8") return "Q8_0";
  return zeroPoints ? "Q4_1" : "Q4_0";
}

/** Scale of each block, and where there are zero points what a code of zero stands for. */
function numbersOf({ format, scales, zeroPoints }: BlockWeight): { scales: number[]; offsets: number[] } {
  const values = (scales as HostTensor).toArray();
  if (!zeroPoints) return { scales: values, offsets: [] };
  const zeros = unpackCodes(format, (zeroPoints as HostTensor).data as Uint8Array, scales.shape[1] as number);
  return { scales: values, offsets: values.map((scale, i) => 0 - zeros[i]! * scale) };
}

/** Rows of blocks of GGUF's, `u8 [out, bytes]`: one half-precision number or two, and the codes of 32 entries. */
function encoded(weight: BlockWeight, type: BlockType): HostTensor {
  const { format, block, shape, codes } = weight;
  const [rows, columns] = shape;
  const { scales, offsets } = numbersOf(weight);
  const blocks = Math.ceil(columns / block);
  const entries = unpackCodes(format, (codes as HostTensor).data as Uint8Array, block);
  const bytes = { Q4_0: 18, Q4_1: 20, Q8_0: 34 }[type];
  const result = new Uint8Array(rows * (columns / group) * bytes);
  const view = new DataView(result.buffer);
  let at = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c += group, at += bytes) {
      const index = r * blocks + Math.floor(c / block);
      const first = r * blocks * block + c;
      view.setUint16(at, toHalf(scales[index]!), true);
      if (type === "Q4_1") view.setUint16(at + 2, toHalf(offsets[index]!), true);
      const from = at + bytes - (type === "Q8_0" ? 32 : 16);
      if (type === "Q8_0") for (let i = 0; i < 32; i++) view.setInt8(from + i, entries[first + i]! - 128);
      else for (let i = 0; i < 16; i++) result[from + i] = entries[first + i]! | (entries[first + i + 16]! << 4);
    }
  }
  return new HostTensor("u8", [rows, result.length / rows], result);
}
