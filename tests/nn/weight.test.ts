import { describe, expect, it } from "vitest";
import { asWeight, at, capture, Dense, Weight, withPoints } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import {
  ArgumentError,
  add,
  asTensor,
  children,
  flattenTree,
  gather,
  grad,
  HostTensor,
  isHostTensor,
  type Leaf,
  linear,
  matmul,
  mul,
  rebuild,
  spec,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";

const matrix = HostTensor.from([
  [1, 2, 3],
  [4, 5, 6],
]);
const x = HostTensor.from([[1, 0, -1]]);

/** A representation as later work will add them: the product of two factors. */
class LowRank extends Weight {
  override readonly kind = "low rank";
  readonly up: Leaf;
  readonly down: Leaf;
  constructor(up: Leaf, down: Leaf) {
    super();
    this.up = up;
    this.down = down;
  }
  override get shape(): readonly [number, number] {
    return [this.up.shape[0] as number, this.down.shape[1] as number];
  }
  override apply(input: Tensor): Tensor {
    return linear(linear(input, this.down), this.up);
  }
  override rows(ids: Tensor): Tensor {
    return matmul(gather(this.up, ids), this.down);
  }
  override dense(): Tensor {
    return matmul(this.up, this.down);
  }
  override [children](): Record<string, Leaf> {
    return { up: this.up, down: this.down };
  }
  override [rebuild](parts: Record<string, unknown>): LowRank {
    return new LowRank(parts.up as Leaf, parts.down as Leaf);
  }
}

const lowRank = (): LowRank => new LowRank(HostTensor.from([[1], [2]]), HostTensor.from([[1, 2, 3]]));

/** A model that knows nothing of representations. */
const model = (w: Record<string, Weight>, input: Tensor, ids: Tensor) => ({
  y: w.layer!.apply(input),
  rows: w.layer!.rows(ids),
});

describe("Weight", () => {
  it.each([
    ["dense", () => new Dense(matrix), [-2, -2], 24, 32],
    ["low rank", lowRank, [-2, -4], 20, (8 * 20) / 6],
  ] as const)("%s applies itself wherever it stands", async (kind, make, product, bytes, bits) => {
    const weight = make();
    expect([weight.kind, weight.shape, weight.bytes]).toEqual([kind, [2, 3], bytes]);
    expect(weight.bitsPerWeight).toBeCloseTo(bits, 10);
    const ids = HostTensor.from([1n, 0n]);
    // As an argument of the program, and as its constant.
    await using fed = await compile((w, a, i) => model(w, a, i), [{ layer: weight }, x, ids]);
    await using fixed = await compile(
      (a, i) => ({ ...model({ layer: weight }, a, i), dense: weight.dense() }),
      [x, ids],
    );
    const [one, two] = [await fed({ layer: weight }, x, ids), await fixed(x, ids)];
    expect(one.y.toArray()).toEqual([...product]);
    expect(two.y.toArray()).toEqual([...product]);
    const dense = two.dense.toArray();
    expect(one.rows.toArray()).toEqual([...dense.slice(3), ...dense.slice(0, 3)]);
    expect(fixed.graph.inputs).toHaveLength(2);
  });

  it("is differentiated and flattened like any tree", async () => {
    const weight = lowRank();
    await using program = await compile((w, a) => grad(sum(w.layer.apply(a)), w), [{ layer: weight }, x]);
    const g = await program({ layer: weight }, x);
    expect(g.layer).toBeInstanceOf(LowRank);
    expect(Object.keys(flattenTree(g, isHostTensor))).toEqual(["layer.up", "layer.down"]);
    expect((g.layer.up as HostTensor).toArray()).toEqual([-2, -2]);
    expect((g.layer.down as HostTensor).toArray()).toEqual([3, 0, -3]);
  });

  it("takes bare matrices as dense weights", () => {
    expect(asWeight(matrix)).toBeInstanceOf(Dense);
    const weight = lowRank();
    expect(asWeight(weight)).toBe(weight);
  });
});

describe("named points", () => {
  const forward = (t: Tensor): Tensor => at("out", add(at("middle", mul(at("in", t), 2)), 1));
  const value = async (f: (t: Tensor) => Tensor): Promise<number> => {
    await using program = await compile((t) => f(t as Tensor), [spec("f32", [])]);
    return (await program(HostTensor.from(5))).item();
  };

  it("are nothing until something is attached", async () => {
    expect(await value(forward)).toBe(11);
  });

  it("replace what passes, inner attachments first", async () => {
    expect(await value((t) => withPoints({ middle: (y) => mul(y, 10) }, () => forward(t)))).toBe(101);
    expect(
      await value((t) =>
        withPoints({ middle: (y) => add(y, 1) }, () =>
          withPoints(
            (name) => (name === "middle" ? (y) => mul(y, 10) : undefined),
            () => forward(t),
          ),
        ),
      ),
    ).toBe(102);
    expect(await value(forward)).toBe(11);
  });

  it("capture tensors by name", async () => {
    await using program = await compile(
      (t) => {
        const { result, captured } = capture(
          (name) => name !== "in",
          () => forward(t as Tensor),
        );
        return { result, captured };
      },
      [spec("f32", [])],
    );
    const out = await program(HostTensor.from(5));
    expect(Object.fromEntries(Object.entries(out.captured).map(([k, v]) => [k, v.item()]))).toEqual({
      middle: 10,
      out: 11,
    });
  });

  it("refuse a name that is never passed, and are gone after an error", async () => {
    await expect(value((t) => withPoints({ mddle: (y) => y }, () => forward(t)))).rejects.toThrow(
      new ArgumentError('the forward pass has no point "mddle"; it passed in, middle, out'),
    );
    expect(() =>
      withPoints(
        {
          in: () => {
            throw new Error("inside");
          },
        },
        () => at("in", asTensor(1)),
      ),
    ).toThrow("inside");
    expect(await value(forward)).toBe(11);
  });
});
