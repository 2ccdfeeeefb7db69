import {
  ArgumentError,
  asTensor,
  children,
  formatShape,
  gather,
  HostTensor,
  isHostTensor,
  type Leaf,
  pad,
  rebuild,
  ShapeError,
  scatter,
  type Tensor,
} from "../../tensor/index.ts";
import { Dense, Weight } from "../weight.ts";
import { BlockWeight } from "./blocks.ts";

/** The logit of an output that has no row: below any other, and finite in half precision, so that nothing becomes NaN. */
export const NEVER = -3e4;

/**
 * A head `[out, in]` of which only some rows are left. The logits of all other outputs are `NEVER`, so that samplers and
 * parsers see the vocabulary that they know.
 */
export class KeptRows extends Weight {
  override readonly kind = "kept-rows";
  override readonly shape: readonly [number, number];
  /** `[kept, in]` */
  readonly inner: Weight;
  /** `i64 [kept]`: the output of each row, increasing. */
  readonly ids: Leaf;

  /**
   * @param outputs those of the whole head
   * @throws ShapeError, ArgumentError for ids that are not increasing outputs, one a row
   */
  constructor(inner: Weight, ids: Leaf, outputs: number) {
    super();
    const [kept, columns] = inner.shape;
    if (ids.dtype !== "i64" || ids.shape.length !== 1 || ids.shape[0] !== kept)
      throw new ShapeError(`${kept} rows are kept under ids i64 [${kept}], not ${ids.dtype} ${formatShape(ids.shape)}`);
    if (isHostTensor(ids)) checkIds(ids.toArray(), outputs);
    this.inner = inner;
    this.ids = ids;
    this.shape = [outputs, columns];
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { outputs: this.shape[0] };
  }

  override apply(x: Tensor): Tensor {
    const logits = this.inner.apply(x);
    const none = logits.shape.map(() => 0);
    return gather(pad(logits, none, [...none.slice(1), 1], { value: NEVER }), this.#places(), -1);
  }

  /** Rows that are gone are zeros. */
  override rows(ids: Tensor): Tensor {
    return gather(this.dense(), ids, 0);
  }

  override dense(): Tensor {
    return gather(pad(this.inner.dense(), [0, 0], [1, 0]), this.#places(), 0);
  }

  /** For each output its kept row; the one behind the last where it has none. */
  #places(): Tensor {
    const kept = this.inner.shape[0];
    const nowhere = new HostTensor("i64", [this.shape[0]], new BigInt64Array(this.shape[0]).fill(BigInt(kept)));
    const rows = new HostTensor(
      "i64",
      [kept],
      BigInt64Array.from({ length: kept }, (_, i) => BigInt(i)),
    );
    return scatter(asTensor(nowhere), asTensor(this.ids), asTensor(rows), { axis: 0 });
  }

  override [children](): Record<string, Weight | Leaf> {
    return { inner: this.inner, ids: this.ids };
  }

  override [rebuild](parts: Record<string, unknown>): KeptRows {
    return new KeptRows(parts.inner as Weight, parts.ids as Leaf, this.shape[0]);
  }
}

function checkIds(ids: readonly number[], outputs: number): void {
  if (ids.length === 0) throw new ArgumentError("a head must keep at least one row");
  const wrong = ids.findIndex(
    (id, i) => !Number.isInteger(id) || id < 0 || id >= outputs || (i > 0 && id <= ids[i - 1]!),
  );
  if (wrong >= 0)
    throw new ArgumentError(
      `ids of kept rows are increasing and below ${outputs}; number ${wrong} of them is ${ids[wrong]}`,
    );
}

/**
 * The head with only those rows, in the representation that it has.
 * @throws ArgumentError for ids that are not increasing outputs, and for representations whose rows share something
 */
export function keepRows(head: Weight, ids: readonly number[]): KeptRows {
  const [outputs] = head.shape;
  checkIds(ids, outputs);
  const places = new HostTensor("i64", [ids.length], BigInt64Array.from(ids, BigInt));
  return new KeptRows(rowsOf(head, ids), places, outputs);
}

function rowsOf(head: Weight, ids: readonly number[]): Weight {
  if (head instanceof Dense) return new Dense(taken(head.values, ids));
  if (head instanceof BlockWeight)
    return new BlockWeight(
      {
        codes: taken(head.codes, ids),
        scales: taken(head.scales, ids),
        ...(head.zeroPoints && { zeroPoints: taken(head.zeroPoints, ids) }),
      },
      head.layout,
    );
  throw new ArgumentError(`rows of a head can be left out where it is dense or in blocks, not ${head.kind}`);
}

function taken(table: Leaf, ids: readonly number[]): HostTensor {
  if (!isHostTensor(table)) throw new ArgumentError("rows are left out of heads in memory, not inside of a program");
  const width = table.size / table.shape[0]!;
  const result = HostTensor.zeros(table.dtype, [ids.length, ...table.shape.slice(1)]);
  for (const [i, id] of ids.entries())
    result.data.set(table.data.subarray(id * width, (id + 1) * width) as never, i * width);
  return result;
}
