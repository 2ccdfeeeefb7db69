import { type BlockFormat, Dense, exactBlocks, toCodebook, type Weight } from "../../../nn/index.ts";
import { type HostTensor, isHostTensor, type Leaf } from "../../../tensor/index.ts";
import { type LevelBits, levelCount } from "./lsbq.ts";
import { levelSets, type QuantGroup } from "./optimizer.ts";

/** The formats of blocks with evenly spaced levels around zero, by bits. */
const evenly: Readonly<Record<LevelBits, BlockFormat>> = { 0: "ternary", 1: "binary", 2: "mid2", 3: "mid3", 4: "mid4" };

/**
 * Trained weights with those of the groups packed as codes and levels, exactly as they are. Evenly spaced levels (all of
 * ternary and 1 bit, and `uniform` ones) become blocks, which native products run on; others codebooks. Tensors of more
 * dimensions are packed as matrices `[out, rest]`.
 * @param weights by name; groups match the paths by which their tensors were trained, `<name>.values` for dense weights
 * @throws ArgumentError where a matrix holds more different values than its bits allow: annealing had not ended
 */
export function packQuantized<W extends Weight | Leaf>(
  weights: Readonly<Record<string, W>>,
  groups: readonly QuantGroup[],
): Record<string, W | Weight> {
  return Object.fromEntries(
    Object.entries(weights).map(([name, weight]) => {
      const dense = weight instanceof Dense;
      const values: unknown = dense ? weight.values : weight;
      if (!isHostTensor(values)) return [name, weight];
      const path = dense ? `${name}.values` : name;
      const group = groups.find((g) => g.match(path, values.shape));
      return [name, group ? packed(path, values, group) : weight];
    }),
  );
}

function packed(path: string, values: HostTensor, group: QuantGroup): Weight {
  const { bits, per = "channel", levels = "lsbq" } = group;
  const rows = values.shape[0]!;
  const matrix = values.reshape([rows, values.size / rows]);
  const sets = levelSets(path, values.shape, group);
  // Refuses what is not quantized, in terms of levels.
  const codebook = toCodebook(matrix, { levels: levelCount(bits), sets });
  const even = bits <= 1 || levels === "uniform";
  if (!even || (typeof per === "number" && per % 16 !== 0)) return codebook;
  const width = matrix.size / sets;
  return exactBlocks(matrix, {
    format: evenly[bits],
    block: typeof per === "number" ? width : "channel",
  });
}
