import { compile, type Program } from "../runtime/index.ts";
import { HostTensor, matmul, op, spec, sub, type Tensor, type TensorSpec, transpose } from "../tensor/index.ts";
import type { Matrix } from "./matrix.ts";

const hosted = (m: Matrix): HostTensor => HostTensor.from(m.data, { shape: [m.rows, m.cols] });

const matrixSpec = (rows: string, cols: string): TensorSpec => spec("f64", [rows, cols]);

/** Matrix products on onnxruntime, in double precision: thirty times as fast as loops over typed arrays. */
export class Products {
  readonly #programs = new Map<string, Promise<Program<readonly TensorSpec[], Tensor>>>();

  /** `A B`. */
  product(a: Matrix, b: Matrix): Promise<Matrix> {
    return this.#run("product", (x, y) => matmul(x!, y!), [matrixSpec("m", "k"), matrixSpec("k", "n")], [a, b]);
  }

  /** `A Bᵀ`. */
  productT(a: Matrix, b: Matrix): Promise<Matrix> {
    const specs = [matrixSpec("m", "k"), matrixSpec("n", "k")];
    return this.#run("productT", (x, y) => matmul(x!, transpose(y!)), specs, [a, b]);
  }

  /** `Aᵀ B`. */
  tProduct(a: Matrix, b: Matrix): Promise<Matrix> {
    const specs = [matrixSpec("k", "m"), matrixSpec("k", "n")];
    return this.#run("tProduct", (x, y) => matmul(transpose(x!), y!), specs, [a, b]);
  }

  /** `C - A B`. */
  minus(c: Matrix, a: Matrix, b: Matrix): Promise<Matrix> {
    const specs = [matrixSpec("m", "n"), matrixSpec("m", "k"), matrixSpec("k", "n")];
    return this.#run("minus", (z, x, y) => op("Gemm", [x!, y!, z!], { alpha: -1 }), specs, [c, a, b]);
  }

  /** `C - A Bᵀ`. */
  minusT(c: Matrix, a: Matrix, b: Matrix): Promise<Matrix> {
    const specs = [matrixSpec("m", "n"), matrixSpec("m", "k"), matrixSpec("n", "k")];
    const fn = (...[z, x, y]: Tensor[]) => op("Gemm", [x!, y!, z!], { alpha: -1, transB: 1 });
    return this.#run("minusT", fn, specs, [c, a, b]);
  }

  /** `A X - L (R X)`. */
  productLess(a: Matrix, l: Matrix, r: Matrix, x: Matrix): Promise<Matrix> {
    const specs = [matrixSpec("m", "k"), matrixSpec("m", "l"), matrixSpec("l", "k"), matrixSpec("k", "n")];
    const fn = (...[a, l, r, x]: Tensor[]) => sub(matmul(a!, x!), matmul(l!, matmul(r!, x!)));
    return this.#run("productLess", fn, specs, [a, l, r, x]);
  }

  async #run(
    name: string,
    fn: (...operands: Tensor[]) => Tensor,
    specs: readonly TensorSpec[],
    operands: readonly Matrix[],
  ): Promise<Matrix> {
    let program = this.#programs.get(name);
    if (!program) {
      program = compile(fn, specs);
      this.#programs.set(name, program);
    }
    const { shape, data } = await (await program)(...operands.map(hosted));
    return { rows: shape[0]!, cols: shape[1]!, data: data as Float64Array };
  }

  async dispose(): Promise<void> {
    for (const program of this.#programs.values()) await (await program).dispose();
  }
}

/** Runs `work` with products whose sessions are closed afterwards. */
export async function withProducts<T>(work: (products: Products) => Promise<T>): Promise<T> {
  const products = new Products();
  try {
    return await work(products);
  } finally {
    await products.dispose();
  }
}
