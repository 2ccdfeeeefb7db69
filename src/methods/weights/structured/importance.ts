import { type DecoderConfig, decode, type Weights } from "../../../models/index.ts";
import { capture } from "../../../nn/index.ts";
import { compile, type DeviceOptions } from "../../../runtime/index.ts";
import {
  ArgumentError,
  add,
  div,
  HostTensor,
  mul,
  spec,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
} from "../../../tensor/index.ts";

/** What the parts of a decoder did on calibration text; the more, the worse it is to lose them. */
export interface StructuredImportance {
  readonly neurons: {
    /** Mean square of each neuron's output over tokens, by layer, `[ffn]` each. */
    readonly energy: readonly Float32Array[];
    /** Norm of each neuron's output over the tokens of a window, averaged over windows; `[ffn]` by layer. */
    readonly norm: readonly Float32Array[];
  };
  /** Mean square of each channel behind the norms before attention and feed-forward, summed over layers, `[dim]`. */
  readonly channels: Float32Array;
  readonly layers: {
    /** 1 - mean cosine of the residual stream before and behind the layer (ShortGPT, Men et al. 2024, eq. 1). */
    readonly influence: readonly number[];
    /** Mean over tokens of `|h' - h|² / |h|²`, `h` and `h'` the stream before and behind the layer. */
    readonly change: readonly number[];
  };
}

/** Tokens that one run of the program takes at most. */
const MOST_TOKENS = 2048;

/** Sums over tokens (`norm`: over windows) of one layer. */
interface LayerSums<T> {
  readonly energy: T;
  readonly norm: T;
  readonly channels: T;
  readonly cosine: T;
  readonly change: T;
}

/**
 * Importance of neurons, residual channels and layers, from one forward pass over calibration text.
 * @param windows `i64 [windows, seq]`, of text that the model is not judged on
 * @throws ArgumentError for no windows, and for activations that are not finite, with the layer
 */
export async function structuredImportance(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  windows: HostTensor,
  device: DeviceOptions = {},
): Promise<StructuredImportance> {
  const [count, length] = windows.shape as [number, number];
  if (windows.shape.length !== 2 || windows.size === 0)
    throw new ArgumentError(`importance takes windows [windows, seq] of tokens, not [${windows.shape.join(", ")}]`);
  let batch = 1;
  for (let n = 1; n <= count && n * length <= MOST_TOKENS; n++) if (count % n === 0) batch = n;
  await using program = await compile(
    (ids) => layerSums(config, weights, ids),
    [spec("i64", [batch, length])] as const,
    device,
  );
  const totals = Array.from({ length: config.layers }, () => ({
    energy: new Float64Array(config.ffn),
    norm: new Float64Array(config.ffn),
    channels: new Float64Array(config.dim),
    cosine: new Float64Array(1),
    change: new Float64Array(1),
  }));
  for (let first = 0; first < count; first += batch) {
    const data = (windows.data as BigInt64Array).subarray(first * length, (first + batch) * length);
    const sums = await program(new HostTensor("i64", [batch, length], data));
    sums.forEach((layer, i) => {
      for (const [name, total] of Object.entries(totals[i]!) as [keyof LayerSums<never>, Float64Array][]) {
        const values = layer[name].data as Float32Array;
        for (let j = 0; j < total.length; j++) total[j]! += values[j]!;
      }
    });
  }
  const broken = totals.findIndex((layer) => Object.values(layer).some((sums) => !sums.every(Number.isFinite)));
  if (broken >= 0) throw new ArgumentError(`the activations of layer ${broken} are not finite on the calibration text`);
  const tokens = count * length;
  const scaled = (values: Float64Array, by: number): Float32Array => Float32Array.from(values, (value) => value / by);
  const channels = new Float64Array(config.dim);
  for (const layer of totals) for (let c = 0; c < channels.length; c++) channels[c]! += layer.channels[c]!;
  return {
    neurons: {
      energy: totals.map(({ energy }) => scaled(energy, tokens)),
      norm: totals.map(({ norm }) => scaled(norm, count)),
    },
    channels: scaled(channels, tokens),
    layers: {
      influence: totals.map(({ cosine }) => 1 - cosine[0]! / tokens),
      change: totals.map(({ change }) => change[0]! / tokens),
    },
  };
}

function layerSums(config: DecoderConfig, weights: Weights, ids: Tensor): LayerSums<Tensor>[] {
  const wanted = /^model\.embed$|^model\.layers\.\d+\.(out|attn\.in|mlp\.in|mlp\.act)$/;
  const { captured } = capture(
    (name) => wanted.test(name),
    () => decode(config, weights, ids),
  );
  return Array.from({ length: config.layers }, (_, i) => {
    const point = (name: string): Tensor | undefined => captured[`model.layers.${i}.${name}`];
    const before = i === 0 ? captured["model.embed"]! : captured[`model.layers.${i - 1}.out`]!;
    const behind = point("out")!;
    const act = square(point("mlp.act")!);
    const energies = [point("attn.in"), point("mlp.in")].flatMap((x) => (x ? [sum(square(x), { axes: [0, 1] })] : []));
    const overChannels = (x: Tensor): Tensor => sum(x, { axes: -1 });
    const size = overChannels(square(before));
    const cosine = div(overChannels(mul(before, behind)), sqrt(mul(size, overChannels(square(behind)))));
    return {
      energy: sum(act, { axes: [0, 1] }),
      norm: sum(sqrt(sum(act, { axes: 1 })), { axes: 0 }),
      channels: energies.reduce((a, b) => add(a, b)),
      cosine: sum(cosine),
      change: sum(div(overChannels(square(sub(behind, before))), size)),
    };
  });
}
