import { parseIdx } from "../../formats/index.ts";
import { crossEntropy, heInit, optim, type Weight } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import {
  add,
  argMax,
  asTensor,
  conv,
  flatten,
  HostTensor,
  isLeaf,
  linear,
  maxPool,
  Rng,
  relu,
  reshape,
  spec,
  type Tensor,
} from "../../tensor/index.ts";
import { type BatchSource, train } from "../../train/index.ts";
import type { Setting } from "../system.ts";
import type { Bag, Task } from "./contest.ts";

const [TRAIN, TEST, BATCH] = [10_000, 2_000, 64];
/** Channels of the convolutions; two poolings make 7 x 7 of 28 x 28. */
const CHANNELS = [1, 8, 16, 32] as const;

/** Handwritten digits, pixels from 0 to 1. */
export interface Digits {
  readonly train: { readonly images: HostTensor; readonly labels: HostTensor };
  readonly test: { readonly images: HostTensor; readonly labels: HostTensor };
}

/** MNIST out of the folder of data; null where it is not there. */
export async function readDigits({ bench }: Setting): Promise<Digits | null> {
  const read = async (file: string): Promise<HostTensor | null> => {
    const path = `images/mnist/${file}-ubyte.gz`;
    const packed = await bench.dataFile?.(path);
    if (!packed) return null;
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return parseIdx(new Uint8Array(await new Response(stream).arrayBuffer()), path);
  };
  const part = async (name: string, count: number) => {
    const [images, labels] = [await read(`${name}-images-idx3`), await read(`${name}-labels-idx1`)];
    if (!images || !labels) return null;
    const pixels = Float32Array.from(images.data.subarray(0, count * 784) as Uint8Array, (v) => v / 255);
    const digits = BigInt64Array.from(labels.data.subarray(0, count) as Uint8Array, BigInt);
    return { images: HostTensor.from(pixels, { shape: [count, 1, 28, 28] }), labels: HostTensor.from(digits) };
  };
  const [first, second] = [await part("train", TRAIN), await part("t10k", TEST)];
  return first && second ? { train: first, test: second } : null;
}

interface ImageBatch<T = HostTensor> {
  readonly images: T;
  readonly labels: T;
}

class ImageBatches implements BatchSource<ImageBatch> {
  readonly #digits: Digits["train"];
  #rng: Rng;

  constructor(digits: Digits["train"], seed: number) {
    this.#digits = digits;
    this.#rng = new Rng(seed).fork("images");
  }

  next(): ImageBatch {
    const images = HostTensor.zeros("f32", [BATCH, 1, 28, 28]);
    const labels = HostTensor.zeros("i64", [BATCH]);
    this.#rng.integers(BATCH, TRAIN).forEach((from, to) => {
      const pixels = (this.#digits.images.data as Float32Array).subarray(784 * from, 784 * (from + 1));
      (images.data as Float32Array).set(pixels, 784 * to);
      labels.set(to, this.#digits.labels.at(from));
    });
    return { images, labels };
  }

  state(): unknown {
    return this.#rng.toJSON();
  }

  restore(state: unknown): void {
    this.#rng = Rng.fromJSON(state);
  }
}

/** Logits `[batch, 10]` of images `[batch, 1, 28, 28]`. */
function logits(weights: Bag, images: Tensor): Tensor {
  const leaf = (name: string): Tensor => {
    const weight = weights[name]!;
    return isLeaf(weight) ? asTensor(weight) : weight.dense();
  };
  let x = images;
  for (let i = 1; i < CHANNELS.length; i++) {
    const kernel = reshape(leaf(`conv${i}`), [CHANNELS[i]!, CHANNELS[i - 1]!, 3, 3]);
    const bias = reshape(leaf(`bias${i}`), [1, CHANNELS[i]!, 1, 1]);
    x = relu(add(conv(x, kernel, { padding: 1 }), bias));
    if (i < 3) x = maxPool(x, 2, { stride: 2 });
  }
  return linear(flatten(x, 1), leaf("head"), leaf("headBias"));
}

function start(seed: number): Bag {
  const rng = new Rng(seed).fork("conv net");
  const weights: Record<string, Weight | HostTensor> = {};
  for (let i = 1; i < CHANNELS.length; i++) {
    weights[`conv${i}`] = heInit([CHANNELS[i]!, CHANNELS[i - 1]!, 3, 3], rng.fork(i));
    weights[`bias${i}`] = HostTensor.zeros("f32", [CHANNELS[i]!]);
  }
  weights.head = rng.fork("head").normalTensor([10, 32 * 49], { std: 0.02 });
  weights.headBias = HostTensor.zeros("f32", [10]);
  return weights;
}

/** A small convolutional net on MNIST from random weights, its convolutions quantized. */
export function digitsTask({ signal, log }: Setting, digits: Digits, seed: number, steps = 400): Task {
  const rate = 2e-3;
  const weights = start(seed);
  return {
    steps,
    rate,
    start: weights,
    quantized: (path) => path.startsWith("conv"),
    async train(optimizer, what) {
      const result = await train<Bag, ImageBatch>({
        params: weights,
        data: new ImageBatches(digits.train, seed),
        steps,
        seed,
        loss: (params, batch) => crossEntropy(logits(params as Bag, batch.images), batch.labels),
        optimizer,
        schedule: optim.cosine(rate, steps),
        signal,
      });
      signal.throwIfAborted();
      log(`${what}: ${steps} steps in ${result.log.at(-1)!.seconds.toFixed(0)} s`);
      return { weights: result.params, losses: result.log.map(({ values }) => values.loss!) };
    },
    async score(bag) {
      const size = 500;
      await using program = await compile((images) => argMax(logits(bag, images), 1), [spec("f32", [size, 1, 28, 28])]);
      let right = 0;
      for (let from = 0; from < TEST; from += size) {
        const pixels = (digits.test.images.data as Float32Array).subarray(784 * from, 784 * (from + size));
        const guesses = await program(HostTensor.from(pixels, { shape: [size, 1, 28, 28] }));
        for (let i = 0; i < size; i++) if (guesses.at(i) === digits.test.labels.at(from + i)) right++;
      }
      return (100 * right) / TEST;
    },
  };
}
