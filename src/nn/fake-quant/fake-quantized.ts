import { fwht } from "../../linalg/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import {
  ArgumentError,
  asTensor,
  children,
  gather,
  HostTensor,
  isHostTensor,
  type Leaf,
  linear,
  rebuild,
  type Tensor,
} from "../../tensor/index.ts";
import { asWeight, Weight } from "../weight.ts";
import { hadamard } from "../weights/hadamard.ts";
import { TransformedWeight } from "../weights/transformed.ts";
import type { InputRounding, Learned, WeightRounding } from "./rounding.ts";

/** What a matrix goes through while it is trained for few bits. */
export interface FakeQuantization {
  readonly weight: WeightRounding;
  /** Default: inputs stay as they are. */
  readonly input?: InputRounding | undefined;
  /**
   * Length of the blocks of input channels, a power of two that divides the width, in which matrix and input are turned
   * by a Hadamard transform before they are rounded. Default 0: they are not.
   */
  readonly hadamard?: number | undefined;
}

/**
 * A matrix in training for few bits: the products are those of the rounded matrix (and input), the gradients are the
 * roundings' own and reach the latent matrix, which the optimizer moves in full precision.
 */
export class FakeQuantized extends Weight {
  override readonly kind = "fake-quantized";
  readonly latent: Leaf;
  readonly learned: Learned<Leaf>;
  readonly how: FakeQuantization;

  /** @throws ArgumentError where the width is not made of blocks that can be turned */
  constructor(latent: Leaf, learned: Learned<Leaf>, how: FakeQuantization) {
    super();
    const [width, size] = [latent.shape[1] as number, how.hadamard ?? 0];
    if (size !== 0 && (!Number.isInteger(Math.log2(size)) || width % size !== 0))
      throw new ArgumentError(`an input of ${width} entries cannot be turned in blocks of ${size}`);
    this.latent = latent;
    this.learned = learned;
    this.how = how;
  }

  /** A matrix `[out, in]` at the start of such training. @throws ArgumentError for numbers that are not finite */
  static of(matrix: HostTensor, how: FakeQuantization): FakeQuantized {
    const latent = matrix.cast("f32");
    const bad = (latent.data as Float32Array).findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      const width = latent.shape[1]!;
      const place = `row ${Math.floor(bad / width)}, column ${bad % width}`;
      throw new ArgumentError(`the matrix holds ${latent.at(bad)} in ${place}; only finite numbers can be rounded`);
    }
    const turned = new FakeQuantized(latent, {}, how).#turnedHost();
    return new FakeQuantized(latent, { ...how.weight.start?.(turned), ...how.input?.start?.() }, how);
  }

  override get shape(): readonly [number, number] {
    return this.latent.shape as readonly [number, number];
  }

  override apply(x: Tensor): Tensor {
    const turned = this.#turn(x);
    return linear(this.how.input ? this.how.input.apply(turned, this.#symbolic()) : turned, this.rounded());
  }

  override rows(ids: Tensor): Tensor {
    return gather(this.dense(), ids, 0);
  }

  override dense(): Tensor {
    return this.#turn(this.rounded());
  }

  /** The matrix on its grid, `[out, in]`, turned where it is turned. */
  rounded(): Tensor {
    return this.how.weight.apply(this.#turn(asTensor(this.latent)), this.#symbolic());
  }

  #symbolic(): Learned<Tensor> {
    return Object.fromEntries(Object.entries(this.learned).map(([name, leaf]) => [name, asTensor(leaf)]));
  }

  /** What training made of it, in few bits. @throws ArgumentError while it is symbolic */
  async packed(device: DeviceOptions = {}): Promise<Weight> {
    const { weight, input, hadamard: size = 0 } = this.how;
    await using program = await compile(() => this.rounded(), [], device);
    const learned = Object.fromEntries(Object.entries(this.learned).map(([name, leaf]) => [name, onHost(leaf)]));
    const packed = weight.pack({ latent: this.#turnedHost(), rounded: await program(), learned });
    const wrapped = input ? input.pack(packed, learned) : packed;
    return size === 0 ? wrapped : new TransformedWeight(wrapped, { hadamard: size });
  }

  #turn(x: Tensor): Tensor {
    const { hadamard: size = 0 } = this.how;
    return size === 0 ? x : hadamard(x, size);
  }

  #turnedHost(): HostTensor {
    const { hadamard: size = 0 } = this.how;
    const latent = onHost(this.latent);
    if (size === 0) return latent;
    const values = Float32Array.from(latent.data as Float32Array);
    fwht(values, size);
    return new HostTensor("f32", latent.shape, values);
  }

  override [children](): Record<string, Leaf> {
    return { latent: this.latent, ...this.learned };
  }

  override [rebuild](parts: Record<string, unknown>): FakeQuantized {
    const { latent, ...learned } = parts as Record<string, Leaf>;
    return new FakeQuantized(latent!, learned, this.how);
  }
}

function onHost(leaf: Leaf): HostTensor {
  if (isHostTensor(leaf)) return leaf;
  throw new ArgumentError("a weight inside of a traced program cannot be packed; pack it when training is done");
}

type Bag = Readonly<Record<string, Weight | Leaf>>;

/**
 * A model's weights with those matrices in training for few bits that `choose` says how to round; null leaves one as it
 * is. Matrices that are represented otherwise than densely are made dense first.
 * @throws ArgumentError naming the matrix that cannot be rounded so
 */
export async function fakeQuantized<W extends Bag>(
  weights: W,
  choose: (name: string, weight: Weight) => FakeQuantization | null,
  device: DeviceOptions = {},
): Promise<Record<string, Weight | Leaf>> {
  const result: Record<string, Weight | Leaf> = {};
  for (const [name, value] of Object.entries(weights)) {
    result[name] = value;
    if (value.shape.length !== 2) continue;
    const weight = asWeight(value);
    const how = choose(name, weight);
    if (!how) continue;
    await using dense = await compile(() => weight.dense(), [], device);
    try {
      result[name] = FakeQuantized.of(await dense(), how);
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause;
      throw new ArgumentError(`"${name}": ${cause.message}`, { cause });
    }
  }
  return result;
}

/** The weights with all that were in training for few bits packed. */
export async function packedWeights(weights: Bag, device: DeviceOptions = {}): Promise<Record<string, Weight | Leaf>> {
  const result: Record<string, Weight | Leaf> = {};
  for (const [name, value] of Object.entries(weights))
    result[name] = value instanceof FakeQuantized ? await value.packed(device) : value;
  return result;
}
