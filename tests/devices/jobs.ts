import { decoderConfig, decoderLogits, initDecoder } from "../../src/models/index.ts";
import { crossEntropy, optim } from "../../src/nn/index.ts";
import type { CompileOptions } from "../../src/runtime/index.ts";
import {
  add,
  conv,
  dropout,
  globalAveragePool,
  groupNorm,
  HostTensor,
  linear,
  maxPool,
  Rng,
  relu,
  reshape,
} from "../../src/tensor/index.ts";
import { type BatchSource, TokenBatches, type TrainOptions, train } from "../../src/train/index.ts";

/** What a run must reproduce on every device. */
export interface Outcome {
  readonly losses: readonly number[];
  /** Of the trained parameters. */
  readonly norm: number;
}

async function outcomeOf<P, B>(options: TrainOptions<P, B>, normOf: (params: P) => number): Promise<Outcome> {
  const { log, params } = await train(options);
  return { losses: log.map(({ values }) => values.loss!), norm: normOf(params) };
}

const lengthOf = (tensors: readonly HostTensor[]): number =>
  Math.sqrt(tensors.reduce((sum, t) => sum + t.toArray().reduce((s, v) => s + v * v, 0), 0));

const config = decoderConfig({
  model_type: "llama",
  vocab_size: 48,
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 64,
  tie_word_embeddings: true,
});

/** A small Llama that learns to count with AdamW. */
export function trainDecoder(options: CompileOptions, steps = 4): Promise<Outcome> {
  const tokens = Array.from({ length: 600 }, (_, i) => (i * 7 + Math.floor(i / 5)) % config.vocab);
  const params = initDecoder(config, new Rng(1));
  return outcomeOf(
    {
      ...options,
      params,
      steps,
      data: new TokenBatches(tokens, { batch: 2, length: 16, seed: 2 }),
      loss: (p, { ids, targets }) => crossEntropy(decoderLogits(config, p as never, ids), targets),
      optimizer: optim.adamw({ weightDecay: 0.01 }),
      schedule: () => 0.01,
    },
    (trained) => lengthOf(Object.values(trained).map((w) => ("values" in w ? w.values : w) as HostTensor)),
  );
}

/** Pictures of noise, brighter in one of four corners. */
class Corners implements BatchSource<{ images: HostTensor; labels: HostTensor }> {
  #rng = new Rng(3);

  next() {
    const labels = HostTensor.from(
      Array.from({ length: 8 }, () => this.#rng.integer(4)),
      { dtype: "i64" },
    );
    const images = this.#rng.normalTensor([8, 3, 8, 8]);
    for (let i = 0; i < images.size; i++) {
      const [picture, row, column] = [Math.floor(i / 192), Math.floor((i % 64) / 8), i % 8];
      const corner = 2 * Number(row >= 4) + Number(column >= 4);
      if (labels.at(picture) === corner) images.set(i, images.at(i) + 1);
    }
    return { images, labels };
  }

  state(): unknown {
    return this.#rng.toJSON();
  }

  restore(state: unknown): void {
    this.#rng = new Rng(state as ReturnType<Rng["toJSON"]>);
  }
}

/** A small network of convolutions with pooling, group normalisation and dropout. */
export function trainConvNet(options: CompileOptions, steps = 4): Promise<Outcome> {
  const rng = new Rng(4);
  const weight = (...shape: number[]): HostTensor =>
    rng.normalTensor(shape, { std: Math.sqrt(2 / shape.slice(1).reduce((a, b) => a * b, 1)) });
  const params = {
    first: weight(8, 3, 3, 3),
    gain: HostTensor.from(Array<number>(8).fill(1)),
    shift: HostTensor.zeros("f32", [8]),
    second: weight(12, 4, 3, 3),
    head: weight(4, 12),
  };
  return outcomeOf(
    {
      ...options,
      params,
      steps,
      data: new Corners(),
      loss: (p, { images, labels }, { key }) => {
        const wide = relu(groupNorm(conv(images, p.first, { padding: 1 }), 2, p.gain, p.shift));
        const deep = relu(conv(maxPool(wide, 2), p.second, { padding: "same", stride: 2, groups: 2 }));
        const features = reshape(globalAveragePool(deep), [8, 12]);
        return crossEntropy(add(linear(dropout(features, 0.2, key), p.head), 0), labels);
      },
      optimizer: optim.sgd({ momentum: 0.9 }),
      schedule: () => 0.05,
    },
    (trained) => lengthOf(Object.values(trained)),
  );
}
