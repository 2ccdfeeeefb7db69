import { describe, expect, test } from "vitest";
import {
  children,
  flattenTree,
  isTensor,
  leavesOf,
  mapTree,
  rebuild,
  scalar,
  type TreeNode,
} from "../../src/tensor/index.ts";

const isNumber = (value: unknown): value is number => typeof value === "number";

/** A layer that is an inner node of trees and carries something that is not a leaf. */
class Layer implements TreeNode {
  readonly weight: unknown;
  readonly name: string;
  constructor(weight: unknown, name: string) {
    this.weight = weight;
    this.name = name;
  }
  [children](): Record<string, unknown> {
    return { weight: this.weight };
  }
  [rebuild]({ weight }: Record<string, unknown>): Layer {
    return new Layer(weight, this.name);
  }
}

describe("trees", () => {
  const tree = {
    a: 1,
    b: [2, { c: 3 }],
    layer: new Layer([4], "first"),
    skipped: "text",
    none: null,
    missing: undefined,
  };

  test("leaves come in order with dotted paths", () => {
    expect(leavesOf(tree, isNumber)).toEqual([
      { path: "a", leaf: 1 },
      { path: "b.0", leaf: 2 },
      { path: "b.1.c", leaf: 3 },
      { path: "layer.weight.0", leaf: 4 },
    ]);
    expect(flattenTree(tree, isNumber)).toEqual({ a: 1, "b.0": 2, "b.1.c": 3, "layer.weight.0": 4 });
    expect(leavesOf(5, isNumber)).toEqual([{ path: "", leaf: 5 }]);
  });

  test("mapping keeps the form, classes and everything that is no leaf", () => {
    const mapped = mapTree(tree, isNumber, (n) => n * 10) as typeof tree;
    expect(mapped).toEqual({ ...tree, a: 10, b: [20, { c: 30 }], layer: new Layer([40], "first") });
    expect(mapped.layer).toBeInstanceOf(Layer);
    expect(tree.a).toBe(1);
  });

  test("a record without a prototype is a record", () => {
    const bare = Object.assign(Object.create(null) as Record<string, number>, { x: 1 });
    expect(leavesOf(bare, isNumber)).toEqual([{ path: "x", leaf: 1 }]);
  });

  test("a leaf may itself be an object", () => {
    const t = scalar(1);
    expect(leavesOf({ t }, isTensor)).toEqual([{ path: "t", leaf: t }]);
  });

  test("other objects and clashing paths are refused", () => {
    expect(() => leavesOf({ a: [new Map()] }, isNumber)).toThrow(
      "a.0 is a Map, which is neither a tensor, a record, an array nor a tree node",
    );
    expect(() => leavesOf(new Date(), isNumber)).toThrow("the tree is a Date");
    expect(() => flattenTree({ "a.b": 1, a: { b: 2 } }, isNumber)).toThrow(
      'two leaves of the tree share the path "a.b"',
    );
  });
});
