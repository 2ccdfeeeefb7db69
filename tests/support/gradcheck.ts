import { compile } from "../../src/runtime/index.ts";
import { add, cast, formatShape, grad, HostTensor, isFloat, mul, sum, type Tensor } from "../../src/tensor/index.ts";

/** A differentiable function of tensors; it may return several. */
export type TensorFunction = (...inputs: Tensor[]) => Tensor | readonly Tensor[];

export interface GradCheckOptions {
  /** What failure messages call the function. */
  name?: string;
  /** Precision of the checked graph: `f32` only where onnxruntime has no `f64` kernel. Sums are taken in `f64`. */
  dtype?: "f64" | "f32";
  /** Half the distance between the two evaluations, relative to inputs larger than 1. Default 1e-5 (`f32`: 5e-3). */
  step?: number;
  /** Largest error, relative to gradients larger than 1. Default 1e-6 (`f32`: 1e-2). */
  tolerance?: number;
}

export interface GradCheckCase extends GradCheckOptions {
  fn: TensorFunction;
  /** Floating-point inputs are differentiated, others (indices, masks) passed as they are. */
  inputs: readonly HostTensor[];
}

const defaults = { f64: { step: 1e-5, tolerance: 1e-6 }, f32: { step: 5e-3, tolerance: 1e-2 } };

/**
 * Compares the gradient of `sum(fn(inputs) * c)`, with fixed and unequal numbers `c`, with central differences.
 * Inputs must lie further than `step` from any kink of `fn`.
 * @throws Error naming the function, the input, the element and both values.
 */
export async function checkGradient(
  fn: TensorFunction,
  inputs: readonly HostTensor[],
  options: GradCheckOptions = {},
): Promise<void> {
  await checkGradients([{ ...options, fn, inputs }]);
}

/** `checkGradient` for many functions in one program, element `k` of all their inputs being moved at the same time. */
export async function checkGradients(cases: readonly GradCheckCase[]): Promise<void> {
  const inputs = cases.map(({ inputs, dtype = "f64" }) => inputs.map((t) => (isFloat(t.dtype) ? t.cast(dtype) : t)));
  const program = await compile(
    (all: readonly Tensor[][]) =>
      all.map((tensors, i) => {
        const loss = weightedSum([cases[i]!.fn(...tensors)].flat() as Tensor[]);
        return { loss, grads: grad(loss, tensors.filter(isDifferentiable)) };
      }),
    [inputs],
    { threads: 1 },
  );
  try {
    const analytic = (await program(inputs)).map(({ grads }) => grads);
    const probes = cases.map((_, i) => inputs[i]!.flatMap(probesOf));
    const longest = Math.max(0, ...probes.map((p) => p.length));
    const wrong: string[] = [];
    for (let k = 0; k < longest; k++) {
      const [above, below] = [await losses(k, 1), await losses(k, -1)];
      probes.forEach((list, i) => {
        const probe = list[k];
        if (!probe) return;
        const { name, fn, dtype = "f64", tolerance = defaults[dtype].tolerance } = cases[i]!;
        const place = inputs[i]!.filter(isDifferentiable).indexOf(probe.tensor);
        const got = analytic[i]![place]!;
        const width = moved(i, probe, 1) - moved(i, probe, -1);
        const expected = (above[i]! - below[i]!) / width;
        const given = got.at(probe.index);
        if (Math.abs(given - expected) <= tolerance * Math.max(1, Math.abs(expected), Math.abs(given))) return;
        const at = inputs[i]!.indexOf(probe.tensor);
        wrong.push(
          `${name ?? fn.toString()}: gradient of input ${at} ${formatShape(probe.tensor.shape)} at element ${probe.index} ` +
            `(value ${probe.tensor.at(probe.index)}) is ${given}, finite differences give ${expected}`,
        );
      });
    }
    if (wrong.length > 0) throw new Error(`${wrong.length} gradients are wrong\n${wrong.slice(0, 8).join("\n")}`);
  } finally {
    await program.dispose();
  }

  function moved(i: number, { tensor, index }: Probe, direction: 1 | -1): number {
    const { dtype = "f64", step = defaults[dtype].step } = cases[i]!;
    const value = tensor.at(index);
    const to = value + direction * step * Math.max(1, Math.abs(value));
    return dtype === "f32" ? Math.fround(to) : to;
  }

  async function losses(k: number, direction: 1 | -1): Promise<number[]> {
    const feeds = inputs.map((tensors, i) =>
      tensors.map((t) => {
        const probe = probesAt(tensors, k);
        if (probe?.tensor !== t) return t;
        const copy = t.clone();
        copy.set(probe.index, moved(i, probe, direction));
        return copy;
      }),
    );
    return (await program(feeds)).map(({ loss }) => loss.item());
  }
}

/**
 * The gradient of `sum(fn * c)` as a function of the same tensors, for checking second derivatives. All inputs must
 * be floating-point.
 */
export function derivative(fn: TensorFunction): TensorFunction {
  return (...inputs) => grad(weightedSum([fn(...inputs)].flat() as Tensor[]), inputs);
}

/** One element of a case's inputs. */
interface Probe {
  tensor: HostTensor;
  index: number;
}

const isDifferentiable = (t: Tensor | HostTensor): boolean => isFloat(t.dtype);

function probesOf(tensor: HostTensor): Probe[] {
  return isDifferentiable(tensor) ? Array.from({ length: tensor.size }, (_, index) => ({ tensor, index })) : [];
}

function probesAt(tensors: readonly HostTensor[], k: number): Probe | undefined {
  let rest = k;
  for (const tensor of tensors.filter(isDifferentiable)) {
    if (rest < tensor.size) return { tensor, index: rest };
    rest -= tensor.size;
  }
  return undefined;
}

/** Every element of `outputs` times a number of its own, summed in `f64`. */
function weightedSum(outputs: readonly Tensor[]): Tensor {
  return outputs
    .filter(isDifferentiable)
    .map((t, nth) => {
      const shape = t.shape.map((d) => {
        if (typeof d !== "number")
          throw new Error(`a gradient is checked on known shapes, not on ${formatShape(t.shape)}`);
        return d;
      });
      const weights = HostTensor.zeros("f64", shape);
      for (let i = 0; i < weights.size; i++) weights.set(i, Math.cos(1.3 * i + nth) + 0.2);
      return sum(mul(cast(t, "f64"), weights));
    })
    .reduce((a, b) => add(a, b));
}
