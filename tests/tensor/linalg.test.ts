import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { nodesOf } from "../../src/onnx/index.ts";
import { compile } from "../../src/runtime/index.ts";
import * as t from "../../src/tensor/index.ts";
import { type DType, HostTensor, type Tensor } from "../../src/tensor/index.ts";
import { checkGradients, derivative, type GradCheckCase } from "../support/gradcheck.ts";
import {
  checkForward,
  einsumOf,
  expectGrids,
  type ForwardCase,
  type Grid,
  gridOf,
  matmulOf,
  randomTensor,
  zip,
} from "../support/oracle.ts";
import { run } from "../support/run.ts";

interface Sample {
  name: string;
  fn: (...inputs: Tensor[]) => Tensor;
  inputs: HostTensor[];
  expected: Grid;
}

async function check(cases: Sample[]): Promise<void> {
  await checkForward(cases as ForwardCase[]);
  await checkGradients(cases as GradCheckCase[]);
}

/** Two operands of a product: vectors, matrices or stacks whose leading axes broadcast. */
const operands = fc
  .record({
    m: fc.integer({ min: 1, max: 3 }),
    k: fc.integer({ min: 0, max: 3 }),
    n: fc.integer({ min: 1, max: 3 }),
    batch: fc.array(fc.tuple(fc.integer({ min: 1, max: 2 }), fc.constantFrom("both", "left", "right")), {
      maxLength: 2,
    }),
    ranks: fc.constantFrom(
      "vector matrix",
      "matrix vector",
      "vector vector",
      "full full",
      "matrix full",
      "full matrix",
      "full vector",
      "vector full",
    ),
  })
  .map(({ m, k, n, batch, ranks }) => {
    const front = (side: string): number[] => batch.map(([size, who]) => (who === "both" || who === side ? size : 1));
    const shape = (rank: string, side: string, matrix: number[]): number[] =>
      rank === "vector" ? [k] : rank === "matrix" ? matrix : [...front(side), ...matrix];
    const [left, right] = ranks.split(" ") as [string, string];
    return [shape(left, "left", [m, k]), shape(right, "right", [k, n])] as const;
  });

describe("matmul", () => {
  test("agrees with plain loops, forward and backward, over vectors, matrices and broadcast stacks", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operands, { minLength: 15, maxLength: 15 }), fc.nat(1000), async (pairs, seed) => {
        await check(
          pairs.map(([a, b]): Sample => {
            const inputs = [randomTensor(a, seed), randomTensor(b, seed + 1)];
            return {
              name: `matmul of [${a}] and [${b}]`,
              fn: (x, y) => t.matmul(x!, y!),
              inputs,
              expected: matmulOf(gridOf(inputs[0]!), gridOf(inputs[1]!)),
            };
          }),
        );
      }),
      { seed: 1, numRuns: 5 },
    );
  });

  test("reads transposed operands, in double and single precision", async () => {
    const cases = (["f64", "f32"] as const).flatMap((dtype) =>
      [
        [
          [3, 2],
          [4, 3],
        ],
        [
          [2, 3, 2],
          [4, 3],
        ],
        [
          [2, 3, 2],
          [2, 4, 3],
        ],
      ].map(([a, b], i) => {
        const inputs = [randomTensor(a!, i).cast(dtype), randomTensor(b!, i + 9).cast(dtype)];
        const swapped = (x: HostTensor): Grid => {
          const rank = x.shape.length;
          const letters = "abc".slice(0, rank);
          return einsumOf(`${letters}->${letters.slice(0, -2)}${letters.at(-1)}${letters.at(-2)}`, gridOf(x));
        };
        return {
          name: `${dtype} [${a}] [${b}]`,
          fn: (x: Tensor, y: Tensor) => t.matmul(t.transpose(x), t.transpose(y)),
          inputs,
          expected: matmulOf(swapped(inputs[0]!), swapped(inputs[1]!)),
        };
      }),
    );
    await checkForward(cases.filter((c) => c.name.startsWith("f64")) as unknown as ForwardCase[]);
    await checkForward(cases.filter((c) => c.name.startsWith("f32")) as unknown as ForwardCase[], 1e-5);
    await checkGradients(cases.filter((c) => c.name.startsWith("f64")) as unknown as GradCheckCase[]);
  });

  test("has second derivatives", async () => {
    const pairs = [
      [
        [2, 3],
        [3, 2],
      ],
      [
        [2, 2, 3],
        [3, 2],
      ],
      [[3], [2, 3, 2]],
    ];
    await checkGradients(
      pairs.map(([a, b], i) => ({
        name: `derivative of matmul of [${a}] and [${b}]`,
        fn: derivative((x, y) => t.tanh(t.matmul(x!, y!))),
        inputs: [randomTensor(a!, i), randomTensor(b!, i + 5)],
      })),
    );
  });

  test.each<DType>(["i32", "i64", "u32", "u64"])("multiplies matrices of %s, transposed ones too", async (dtype) => {
    const a = HostTensor.from([1, 2, 3, 4], { dtype, shape: [2, 2] });
    const results = await run((x) => [t.matmul(x!, x!), t.matmul(x!, t.transpose(x!))], a);
    expect(results.map((r) => [r.dtype, ...r.toArray()])).toEqual([
      [dtype, 7, 10, 15, 22],
      [dtype, 5, 11, 11, 25],
    ]);
  });

  test("over an inner dimension of length zero is zero, and not left to onnxruntime, which returns stray memory", async () => {
    const operands = [
      [[2, 0], [0]],
      [[0], [2, 0, 3]],
      [
        [3, 0],
        [2, 0, 2],
      ],
      [
        [2, 3, 0],
        [0, 2],
      ],
    ] as const;
    for (const [a, b] of operands) {
      const inputs = [randomTensor(a, 1), randomTensor(b, 2)];
      const program = await compile((x, y) => t.matmul(x, y), [inputs[0]!, inputs[1]!] as const, { threads: 1 });
      expect(nodesOf(program.graph.outputs.map((p) => p.tensor)).some(({ op }) => /MatMul|Gemm/.test(op))).toBe(false);
      const got = await program(inputs[0]!, inputs[1]!);
      expectGrids(`[${a}] by [${b}]`, [got], [matmulOf(gridOf(inputs[0]!), gridOf(inputs[1]!))], 0);
      await program.dispose();
    }
  });

  test("linear multiplies by the transposed weight and adds a bias", async () => {
    const inputs = [randomTensor([2, 3], 1), randomTensor([4, 3], 2), randomTensor([4], 3)];
    const [x, w, b] = inputs.map(gridOf) as [Grid, Grid, Grid];
    const product = einsumOf("ik,jk->ij", x, w);
    await check([
      { name: "without", fn: (a, c) => t.linear(a!, c!), inputs: inputs.slice(0, 2), expected: product },
      {
        name: "with",
        fn: (...all) => t.linear(...(all as [Tensor, Tensor, Tensor])),
        inputs,
        expected: zip((p, q) => p! + q!, product, b),
      },
    ]);
  });
});

describe("Gemm and FusedMatMul", () => {
  test("agree with plain loops under every attribute", async () => {
    const cases = [0, 1].flatMap((transA) =>
      [0, 1].flatMap((transB) =>
        [null, [], [3], [2, 1], [2, 3]].map((bias, i): Sample => {
          const inputs = [randomTensor(transA ? [4, 2] : [2, 4], i), randomTensor(transB ? [3, 4] : [4, 3], i + 1)];
          const product = einsumOf(`${transA ? "ki" : "ik"},${transB ? "jk" : "kj"}->ij`, ...inputs.map(gridOf));
          if (bias) inputs.push(randomTensor(bias, i + 2));
          return {
            name: `Gemm ${transA}${transB} bias ${bias && `[${bias}]`}`,
            fn: (...x) => t.op("Gemm", x, { transA, transB, alpha: 0.5, beta: 2 }),
            inputs,
            expected: bias
              ? zip((p, c) => 0.5 * p! + 2 * c!, product, gridOf(inputs[2]!))
              : zip((p) => 0.5 * p!, product),
          };
        }),
      ),
    );
    await check(cases);
  });

  test("FusedMatMul transposes the last two axes of stacks", async () => {
    for (const [transA, transB] of [
      [0, 1],
      [1, 0],
      [1, 1],
    ] as const) {
      const inputs = [
        randomTensor(transA ? [2, 4, 2] : [2, 2, 4], 1),
        randomTensor(transB ? [2, 3, 4] : [2, 4, 3], 2),
      ].map((x) => x.cast("f32"));
      const product = einsumOf(`b${transA ? "ki" : "ik"},b${transB ? "jk" : "kj"}->bij`, ...inputs.map(gridOf));
      const sample = {
        name: "fused",
        fn: (...x: Tensor[]) => t.op("com.microsoft.FusedMatMul", x, { transA, transB, alpha: 0.5 }),
        inputs,
        expected: zip((p) => 0.5 * p!, product),
      };
      await checkForward([sample], 1e-5);
      await checkGradients([{ ...sample, dtype: "f32" }]);
    }
  });
});

describe("einsum", () => {
  const equations = [
    "i->",
    "i->i",
    "ij->ji",
    "ij->",
    "ijk->j",
    "i,i->",
    "i,j->ij",
    "ij,jk->ik",
    "ij,kj->ik",
    "ij,ij->ij",
    "ij,ij->i",
    "ij,jk->",
    "ijk,k->ij",
    "bij,bjk->bik",
    "bqd,bkd->bqk",
    "bhqd,bhkd->bhqk",
    "bhqk,bhkd->bqhd",
    "ij,jk,kl->il",
    "ij,j,i->",
    "abc,cd->abd",
    "abc,bd->acd",
    "ab,cd->cadb",
    ",ij->ij",
  ];
  const sizes: Record<string, number> = { a: 2, b: 2, c: 3, d: 2, h: 2, i: 2, j: 3, k: 2, l: 3, q: 2 };

  test("agrees with plain loops, forward and backward", async () => {
    await check(
      equations.map((equation, i): Sample => {
        const inputs = equation
          .split("->")[0]!
          .split(",")
          .map((term, k) =>
            randomTensor(
              [...term].map((l) => sizes[l]!),
              10 * i + k,
            ),
          );
        return {
          name: equation,
          fn: (...x) => t.einsum(equation, ...x),
          inputs,
          expected: einsumOf(equation, ...inputs.map(gridOf)),
        };
      }),
    );
  });

  test("random equations of two or three operands", async () => {
    const term = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"), { maxLength: 3 }).map((l) => l.join(""));
    const equation = fc.array(term, { minLength: 2, maxLength: 3 }).chain((terms) => {
      const letters = [...new Set(terms.join(""))];
      return fc.shuffledSubarray(letters).map((output) => `${terms.join(",")}->${output.join("")}`);
    });
    await fc.assert(
      fc.asyncProperty(fc.array(equation, { minLength: 15, maxLength: 15 }), fc.nat(1000), async (list, seed) => {
        await check(
          list.map((text): Sample => {
            const inputs = text
              .split("->")[0]!
              .split(",")
              .map((letters, k) =>
                randomTensor(
                  [...letters].map((l) => sizes[l]!),
                  seed + k,
                ),
              );
            return {
              name: text,
              fn: (...x) => t.einsum(text, ...x),
              inputs,
              expected: einsumOf(text, ...inputs.map(gridOf)),
            };
          }),
        );
      }),
      { seed: 2, numRuns: 4 },
    );
  });

  test("without an arrow, letters that occur once are kept in alphabetical order; spaces do not matter", async () => {
    const inputs = [randomTensor([2, 3], 1), randomTensor([3, 4], 2)];
    const expected = einsumOf("bj,ja->ab", ...inputs.map(gridOf));
    await check([
      { name: "implicit", fn: (x, y) => t.einsum("bj,ja", x!, y!), inputs, expected },
      { name: "spaces", fn: (x, y) => t.einsum("b j, j a -> a b", x!, y!), inputs, expected },
      { name: "ONNX's", fn: (x, y) => t.op("Einsum", [x!, y!], { equation: "bj,ja->ab" }), inputs, expected },
    ]);
  });

  test("has second derivatives", async () => {
    await checkGradients([
      {
        name: "derivative of einsum",
        fn: derivative((x, y) => t.tanh(t.einsum("bqd,bkd->bqk", x!, y!))),
        inputs: [randomTensor([2, 2, 2], 1), randomTensor([2, 1, 2], 2)],
      },
    ]);
  });

  test("an operand used twice gets both gradients", async () => {
    await checkGradients([
      { name: "x x", fn: (x) => t.einsum("ij,kj->ik", x!, x!), inputs: [randomTensor([2, 3], 1)] },
      {
        name: "ONNX's x x",
        fn: (x) => t.op("Einsum", [x!, x!], { equation: "ij,kj->ik" }),
        inputs: [randomTensor([2, 3], 1)],
      },
    ]);
  });
});
