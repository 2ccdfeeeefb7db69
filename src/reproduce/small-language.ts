import { Tokenizer, trainBpe } from "../formats/index.ts";
import {
  type DecoderConfig,
  decoderConfig,
  decoderLogits,
  initDecoder,
  isLayerMatrix,
  type Weights,
} from "../models/index.ts";
import { asWeight, crossEntropy, Dense, optim, withPoints } from "../nn/index.ts";
import { compile } from "../runtime/index.ts";
import { add, HostTensor, Rng, spec, type Tensor } from "../tensor/index.ts";
import { TokenBatches, tokenBatch, train } from "../train/index.ts";
import type { Setting } from "./system.ts";
import { cachedTree, type LanguageModel } from "./workbench.ts";

/** A Llama that is small enough to be trained in an experiment. */
export interface SmallShape {
  readonly vocab: number;
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  /** Default: `heads`. */
  readonly kvHeads?: number;
  readonly ffn: number;
  /** Whether the head shares the embedding's matrix. Default true, and false with outliers. */
  readonly tied?: boolean;
  /**
   * Channels of the residual stream that are large for every token, as large language models have them: while the model
   * is trained, `size` is added to (or, in turn, taken from) so many channels of its embeddings.
   */
  readonly outliers?: { readonly channels: number; readonly size: number };
  /**
   * Deviation of the embeddings at the start. Default 0.02, and 0.2 with outliers, so that beside these the norms leave
   * something of them to learn from.
   */
  readonly embedding?: number;
  /** Deviation of the layers' matrices at the start, of those that write to the residual stream less. Default 0.02. */
  readonly matrices?: number;
}

export interface LanguageTraining {
  readonly steps: number;
  /** Highest learning rate. Default 2e-3. */
  readonly rate?: number;
  /** Windows in a batch. Default 16. */
  readonly batch?: number;
  /** Tokens in a window. Default 128. */
  readonly length?: number;
}

const END = "<|endoftext|>";

/**
 * A small language model with a vocabulary of its own, trained on the text that comes with pare: the same for the same
 * seed, and kept in the workbench's cache. With outliers, what was added to its embeddings is part of them afterwards.
 */
export async function smallLanguage(setting: Setting, options: SmallShape & LanguageTraining): Promise<LanguageModel> {
  const start = await untrainedLanguage(setting, options);
  const key = ["small language", setting.seed, options];
  const weights = await cachedTree(setting.bench, key, start.weights, async () => {
    const trained = await trainLanguage(setting, start, { ...options, what: "a small language model" });
    return withShift(start, trained.weights);
  });
  const { shift: _, ...model } = start;
  return { ...model, weights };
}

/** A small model as it is before training, with the vector `[dim]` that is to be added to its embeddings, if any. */
export interface UntrainedLanguage extends LanguageModel {
  readonly shift: HostTensor | null;
}

/** The model that `smallLanguage` begins with. */
export async function untrainedLanguage(setting: Setting, shape: SmallShape): Promise<UntrainedLanguage> {
  const { vocab, layers, dim, heads, kvHeads = heads, ffn, outliers, tied = outliers === undefined } = shape;
  const { embedding = outliers ? 0.2 : 0.02, matrices = 0.02 } = shape;
  const { tokenizer, training, heldOut } = await smallText(setting, vocab);
  const config = decoderConfig({
    model_type: "llama",
    vocab_size: tokenizer.vocabSize,
    hidden_size: dim,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: tied,
  });
  const rng = new Rng(setting.seed).fork("small language");
  const weights = initDecoder(config, rng.fork("weights"));
  for (const [name, weight] of Object.entries(weights)) {
    if (name === "model.embed_tokens.weight") scale(weight as Dense, embedding / 0.02);
    else if (isLayerMatrix(name)) scale(weight as Dense, matrices / 0.02);
  }
  return {
    name: `llama ${layers} x ${dim}`,
    config,
    weights,
    tokenizer,
    training,
    heldOut,
    shift: outliers ? outlierVector(dim, outliers, rng.fork("outliers")) : null,
  };
}

function scale({ values }: Dense, factor: number): void {
  const data = (values as HostTensor).data as Float32Array;
  data.forEach((value, i) => {
    data[i] = factor * value;
  });
}

/** What is added to embeddings `[dim]` for outliers in channels drawn at random. */
export function outlierVector(dim: number, { channels, size }: Required<SmallShape>["outliers"], rng: Rng): HostTensor {
  const vector = HostTensor.zeros("f32", [dim]);
  for (const [i, channel] of [...rng.permutation(dim).slice(0, channels)].entries())
    vector.set(channel, i % 2 === 0 ? size : -size);
  return vector;
}

/** The texts that come with pare, in the tokens of a small vocabulary learned from those for training. */
async function smallText({ bench }: Setting, vocab: number) {
  const { tokenizer: original, training, heldOut } = await bench.languageModel();
  const text = (tokens: readonly number[]): string[] =>
    original
      .decode(tokens)
      .split(END)
      .filter((story) => story !== "");
  const stories = text(training);
  const learned = trainBpe(stories, { vocabSize: vocab, specialTokens: [END] });
  const tokenizer = Tokenizer.fromFiles({
    tokenizerJson: learned,
    tokenizerConfig: { bos_token: END, eos_token: END },
  });
  const end = tokenizer.tokenToId(END)!;
  const tokens = (parts: readonly string[]): number[] =>
    parts.flatMap((part) => [end, ...tokenizer.encode(part, { addSpecialTokens: false })]);
  return { tokenizer, training: tokens(stories), heldOut: tokens(text(heldOut)) };
}

/** Logits of a model whose embeddings are shifted while it is trained. */
export function shiftedLogits(config: DecoderConfig, weights: Weights, ids: Tensor, shift: HostTensor | null): Tensor {
  const forward = (): Tensor => decoderLogits(config, weights, ids);
  return shift ? withPoints({ "model.embed": (x) => add(x, shift) }, forward) : forward();
}

/** The weights with the shift of embeddings in their rows. @throws Error where the head shares these */
export function withShift({ config, shift }: Pick<UntrainedLanguage, "config" | "shift">, weights: Weights): Weights {
  if (!shift) return weights;
  if (config.tied) throw new Error("a shift of embeddings cannot be part of a matrix that the head shares");
  const name = "model.embed_tokens.weight";
  const matrix = (asWeight(weights[name]!) as Dense).values as HostTensor;
  const values = Float32Array.from(matrix.data as Float32Array, (value, i) => value + shift.at(i % config.dim));
  return { ...weights, [name]: new Dense(new HostTensor("f32", matrix.shape, values)) };
}

export interface TrainLanguageOptions extends LanguageTraining {
  /** What is trained, for the log. */
  readonly what: string;
  /** Default AdamW with a weight decay of 0.1. */
  readonly optimizer?: optim.Optimizer;
  /** Default: up over the first tenth, then down along a cosine. */
  readonly schedule?: optim.Schedule;
  readonly trainable?: (path: string) => boolean;
}

/** What of a model is trained. */
export interface Trainee<W extends Weights = Weights> {
  readonly config: DecoderConfig;
  readonly weights: W;
  readonly training: readonly number[];
  readonly shift?: HostTensor | null;
}

/** Next-token training on a model's text. @returns the weights, and the loss of each step in nats a token */
export async function trainLanguage<W extends Weights>(
  { seed, signal, log }: Setting,
  { config, weights, training, shift = null }: Trainee<W>,
  { what, steps, rate = 2e-3, batch = 16, length = 128, optimizer, schedule, trainable }: TrainLanguageOptions,
): Promise<{ readonly weights: W; readonly losses: readonly number[] }> {
  const result = await train({
    params: weights,
    data: new TokenBatches(training, { batch, length, seed }),
    steps,
    seed,
    loss: (params, { ids, targets }) => crossEntropy(shiftedLogits(config, params as Weights, ids, shift), targets),
    optimizer: optimizer ?? optim.adamw({ beta2: 0.95, weightDecay: 0.1 }),
    schedule: schedule ?? optim.warmUp(Math.ceil(steps / 10), optim.cosine(rate, steps, rate / 20)),
    ...(trainable && { trainable }),
    signal,
  });
  signal.throwIfAborted();
  const losses = result.log.map(({ values }) => values["loss"]!);
  const last = losses.slice(-20);
  const mean = last.reduce((sum, loss) => sum + loss, 0) / last.length;
  log(`${what}: ${steps} steps in ${result.log.at(-1)!.seconds.toFixed(0)} s, loss ${mean.toFixed(3)}`);
  return { weights: result.params, losses };
}

/** Mean loss on the first `windows` windows of held-out text, in nats a token. */
export async function heldOutLoss(
  { signal }: Setting,
  { config, weights, heldOut, shift = null }: Omit<Trainee, "training"> & { readonly heldOut: readonly number[] },
  { windows = 64, length = 128 } = {},
): Promise<number> {
  const batch = 16;
  const ids = spec("i64", [batch, length]);
  await using program = await compile(
    (tokens, targets) => crossEntropy(shiftedLogits(config, weights, tokens, shift), targets),
    [ids, ids],
  );
  const batches = Math.min(Math.ceil(windows / batch), Math.floor((heldOut.length - 1) / (batch * length)));
  let total = 0;
  for (let i = 0; i < batches; i++) {
    signal.throwIfAborted();
    const starts = Array.from({ length: batch }, (_, row) => (i * batch + row) * length);
    const { ids: tokens, targets } = tokenBatch(heldOut, starts, length);
    total += (await program(tokens, targets)).item();
  }
  return total / batches;
}
