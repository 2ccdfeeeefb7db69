import { capture } from "../nn/points.ts";
import { compile, type Traced } from "../runtime/index.ts";
import { abs, cast, foldIn, type HostTensor, isFloat, less, min } from "../tensor/index.ts";
import type { StepOptions } from "./step.ts";

/**
 * The first named point, in the order of the forward pass, whose activation holds a NaN or an infinity on one of the
 * micro-batches; null when all are finite.
 */
export async function firstBroken<P, B>(
  options: Omit<StepOptions<P, B>, "example">,
  params: P,
  batches: readonly B[],
  key: HostTensor,
): Promise<string | null> {
  for (const [i, batch] of batches.entries()) {
    const names: string[] = [];
    const program = await compile(
      (symbolic, seed) => {
        const { captured } = capture(
          (_name) => true,
          () => options.loss(params as Traced<P>, symbolic as Traced<B>, { key: foldIn(seed, i) }),
        );
        const points = Object.entries(captured).filter(([, t]) => isFloat(t.dtype));
        names.push(...points.map(([name]) => name));
        return [seed, ...points.map(([, t]) => min(cast(less(abs(t), Infinity), "f32")))];
      },
      [batch, key] as const,
      options,
    );
    try {
      const [, ...finite] = await program(batch as never, key as never);
      const at = finite.findIndex((flag) => flag.item() !== 1);
      if (at >= 0) return names[at]!;
    } finally {
      await program.dispose();
    }
  }
  return null;
}
