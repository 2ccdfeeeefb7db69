import { ArgumentError, HostTensor } from "../../tensor/index.ts";
import { Dense, type Weight } from "../weight.ts";
import type { BlockFormat } from "../weights/block-format.ts";
import { LowRank } from "../weights/low-rank.ts";
import { BlockGrid } from "../weights/round.ts";
import { SumWeight } from "../weights/sum.ts";

/** Rows of numbers that lie on grids as `roundToLevels` makes them. */
export interface LevelRows {
  /** `f32 [out, in]` */
  readonly rounded: HostTensor;
  /** Distance between the levels of each row, or of all of them. */
  readonly steps: ArrayLike<number> | number;
  readonly levels: number;
  /** Whether there are zeros among them that their grid does not have. */
  readonly zeros?: boolean;
}

/**
 * Such rows as codes with one scale each. Where zeros were put among the numbers of a grid without one, codes are whole
 * numbers of half steps. There is no mid-rise format beyond 16 levels: there, codes are whole steps, and a term of rank
 * one adds half a step to every entry.
 * @throws ArgumentError where the codes take more than a byte
 */
export function packLevels({ rounded, steps, levels, zeros = false }: LevelRows): Weight {
  const [rows, columns] = rounded.shape as [number, number];
  const step = (r: number): number => (typeof steps === "number" ? steps : steps[r]!);
  const even = levels % 2 === 0;
  const shifted = even && levels > 16 && !zeros;
  const shift = (r: number): number => (shifted ? step(r) / 2 : 0);

  const grid = new BlockGrid([rows, columns], { format: formatFor(levels, even && zeros), block: "channel" });
  for (let r = 0; r < rows; r++) grid.scales[r] = even && !shifted ? step(r) / 2 : step(r);
  const values = (rounded.data as Float32Array).map((value, i) => value - shift(Math.floor(i / columns)));
  const blocks = grid.pack(grid.encode(values), { exact: true });
  if (!shifted) return blocks;
  const up = HostTensor.from(
    Float32Array.from({ length: rows }, (_, r) => shift(r)),
    { shape: [rows, 1] },
  );
  const ones = HostTensor.from(new Float32Array(columns).fill(1), { shape: [1, columns] });
  return new SumWeight([{ weight: blocks }, { weight: new LowRank(new Dense(up), new Dense(ones)) }]);
}

/** Formats by the levels that they have room for, without zeros among them and with. */
const formats: Readonly<Record<number, readonly [BlockFormat, BlockFormat | null]>> = {
  2: ["binary", "ternary"],
  3: ["ternary", null],
  4: ["mid2", "int3"],
  8: ["mid3", "int4"],
  16: ["mid4", "int8"],
  128: ["int8", "int8"],
  256: ["int8", null],
};

function formatFor(levels: number, zeros: boolean): BlockFormat {
  const room = Object.keys(formats)
    .map(Number)
    .find((most) => levels <= most);
  const format = room === undefined ? null : formats[room]![zeros ? 1 : 0];
  if (format) return format;
  throw new ArgumentError(
    `${levels} levels${zeros ? " with zeros among them" : ""} take more than a byte each; round to fewer bits`,
  );
}
