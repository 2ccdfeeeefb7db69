import { Dense, type Weight } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { type HostTensor, isHostTensor, matmul, mul, sub, sum, type Tensor } from "../../tensor/index.ts";
import { fed } from "./half.ts";

/** What compressing one matrix did to it. */
export interface MatrixReport {
  readonly name: string;
  readonly method: string;
  readonly kind: string;
  readonly shape: readonly [number, number];
  /** `||X W^T - X W'^T|| / ||X W^T||` over the calibration inputs; null where the inputs are not known. */
  readonly outputError: number | null;
  /** `||W - W'|| / ||W||` */
  readonly weightError: number;
  readonly bytes: number;
  readonly bitsPerWeight: number;
  readonly seconds: number;
  /** What the method remarked. */
  readonly notes: readonly string[];
}

/** Relative errors of a weight that stands for the matrix `original f32 [out, in]`; `gram` is `X^T X` of its inputs. */
export async function weightErrors(
  original: HostTensor,
  compressed: Weight,
  gram: HostTensor | null,
  device: DeviceOptions = {},
): Promise<Pick<MatrixReport, "outputError" | "weightError">> {
  const weight = fed(compressed);
  const program = await compile(
    (w, other, g) => {
      const off = sub(w, (other as Weight).dense());
      const energy = (m: Tensor, inputs: Tensor[]): Tensor =>
        sum(
          mul(
            m,
            inputs.reduce((product, one) => matmul(product, one), m),
          ),
        );
      return [energy(off, []), energy(w, []), energy(off, g), energy(w, g)];
    },
    [original, weight, gram ? [gram] : []] as const,
    device,
  );
  try {
    const sums = await program(original, weight as never, (gram ? [gram] : []) as never);
    const [off, whole, offOut, wholeOut] = sums.map((t) => t.item()) as [number, number, number, number];
    return { weightError: relative(off, whole), outputError: gram ? relative(offOut, wholeOut) : null };
  } finally {
    await program.dispose();
  }
}

/** Root of a ratio of energies. Rounding can take one that is almost nothing below zero. */
function relative(part: number, whole: number): number {
  return whole > 0 ? Math.sqrt(Math.max(0, part) / whole) : part > 0 ? Infinity : 0;
}

/** The numbers `f32 [out, in]` that a weight stands for. */
export async function denseValues(of: Weight, device: DeviceOptions = {}): Promise<HostTensor> {
  const weight = fed(of);
  if (weight instanceof Dense && isHostTensor(weight.values)) return weight.values.cast("f32");
  const program = await compile((w) => (w as Weight).dense(), [weight] as const, device);
  try {
    return (await program(weight as never)).cast("f32");
  } finally {
    await program.dispose();
  }
}
