import { type DecoderConfig, decoderBlock, type Weights } from "../../models/index.ts";
import { capture, withPoints } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { HostTensor, mul, sub, sum, type Tensor } from "../../tensor/index.ts";

/** Tokens in one run. */
const BATCH = 2048;

export interface PartErrorOptions extends DeviceOptions {
  /** As many tokens are looked at, in whole windows. */
  readonly tokens: number;
}

/** A layer with what goes into it. */
interface LayerAsItIs {
  readonly index: number;
  readonly weights: Weights;
  /** The residual stream before it, `f32 [windows, seq, dim]`. */
  readonly hidden: HostTensor;
}

/**
 * How far attention or the feed-forward network of a layer is off when weights behind one of its points are changed: the
 * squared error of all that it puts out, on what the layer has at that point as it is.
 */
export class PartErrors implements AsyncDisposable {
  readonly #weights: Weights;
  /** What the layer has at its points, batch by batch. */
  readonly #seen: readonly Readonly<Record<string, HostTensor>>[];
  readonly #programs: ReadonlyMap<string, ErrorProgram>;

  private constructor(
    weights: Weights,
    seen: readonly Readonly<Record<string, HostTensor>>[],
    programs: ReadonlyMap<string, ErrorProgram>,
  ) {
    this.#weights = weights;
    this.#seen = seen;
    this.#programs = programs;
  }

  /** @param points those that weights will be changed behind, such as `model.layers.3.mlp.in` */
  static async of(
    config: DecoderConfig,
    { index, weights, hidden }: LayerAsItIs,
    points: readonly string[],
    { tokens, ...device }: PartErrorOptions,
  ): Promise<PartErrors> {
    const batches = batchesOf(hidden, tokens);
    const wanted = new Set([...points, ...points.map(partEnd)]);
    await using layer = await compile(
      (bag, x) =>
        capture(
          (name) => wanted.has(name),
          () => decoderBlock(config, bag as Weights, index, x),
        ).captured,
      [weights, batches[0]!] as const,
      device,
    );
    const seen: Record<string, HostTensor>[] = [];
    for (const batch of batches) seen.push((await layer(weights as never, batch)) as Record<string, HostTensor>);
    const programs = new Map<string, ErrorProgram>();
    for (const point of points)
      programs.set(point, await errorProgram(config, { index, weights }, point, seen[0]!, device));
    return new PartErrors(weights, seen, programs);
  }

  /** The error with `changed` in place of weights of the same names, shapes and representations. */
  async behind(point: string, changed: Weights): Promise<number> {
    const weights = { ...this.#weights, ...changed };
    const program = this.#programs.get(point)!;
    let total = 0;
    for (const batch of this.#seen)
      total += (await program(weights as never, batch[point]!, batch[partEnd(point)]!)).item();
    return total;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs.values()) await program.dispose();
  }
}

/** Where the part of a point ends: `model.layers.3.mlp.out`. */
const partEnd = (point: string): string => point.replace(/\.\w+$/, ".out");

/** The first windows, at least as many as hold that many tokens, in batches of one size. */
function batchesOf(hidden: HostTensor, tokens: number): HostTensor[] {
  const [count, length, dim] = hidden.shape as [number, number, number];
  const windows = Math.min(count, Math.ceil(tokens / length));
  const size = Math.min(windows, Math.max(1, Math.floor(BATCH / length)));
  return Array.from({ length: Math.floor(windows / size) }, (_, i) => {
    const entries = size * length * dim;
    return new HostTensor("f32", [size, length, dim], hidden.data.subarray(i * entries, (i + 1) * entries));
  });
}

type ErrorProgram = Awaited<ReturnType<typeof errorProgram>>;

/** A program from weights, what there is at a point, and what should come out of its part, to the squared error. */
function errorProgram(
  config: DecoderConfig,
  { index, weights }: Pick<LayerAsItIs, "index" | "weights">,
  point: string,
  seen: Readonly<Record<string, HostTensor>>,
  device: DeviceOptions,
) {
  const end = partEnd(point);
  const [input, output] = [seen[point]!, seen[end]!];
  return compile(
    (bag, x, expected) => {
      // Only what lies between the two points counts: the stream may be anything of its shape.
      const { captured } = capture(
        (name) => name === end,
        () => withPoints({ [point]: () => x }, () => decoderBlock(config, bag as Weights, index, expected)),
      );
      const off = sub(captured[end] as Tensor, expected);
      return sum(mul(off, off));
    },
    [weights, input, output] as const,
    device,
  );
}
