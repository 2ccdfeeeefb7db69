/**
 * Trains the language model that pare ships in `models/storybook`:
 *
 *     npx tsx scripts/storybook/train.ts --text <folder of books> --work <folder> [--steps 2400]
 *
 * The work folder keeps checkpoints, so that a run that was stopped goes on where it was; the finished model is written to
 * `<work>/model`. `--steps` may be changed between runs as long as the decay of the learning rate has not begun.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer, trainBpe } from "../../src/formats/index.ts";
import { writeFileAtomic } from "../../src/formats/node.ts";
import { decoderConfig, decoderLogits, initDecoder } from "../../src/models/index.ts";
import { saveModel } from "../../src/models/node.ts";
import { crossEntropy, optim } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { isHostTensor, mapTree, Rng, spec } from "../../src/tensor/index.ts";
import { Progress, TokenBatches, tokenBatch, train } from "../../src/train/index.ts";
import { checkpointFolder, openRunLog } from "../../src/train/node.ts";
import { endOfText, readCorpus } from "./text.ts";

const { values: options } = parseArgs({
  options: {
    text: { type: "string" },
    work: { type: "string" },
    steps: { type: "string", default: "2400" },
    seed: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
  },
});
if (!options.text || !options.work) throw new Error("give --text <folder of books> and --work <folder>");
const [steps, seed, threads] = [Number(options.steps), Number(options.seed), Number(options.threads)];
const work = options.work;
mkdirSync(work, { recursive: true });

const batch = { batch: 16, length: 256 };
const json = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 4096,
  hidden_size: 256,
  intermediate_size: 640,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 64,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  hidden_act: "silu",
  tie_word_embeddings: true,
  attention_bias: false,
  bos_token_id: 0,
  eos_token_id: 0,
};
const config = decoderConfig(json);

const corpus = readCorpus(options.text);
const tokenizer = Tokenizer.fromFiles({
  tokenizerJson: await learnedTokenizer(),
  tokenizerConfig: {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: endOfText,
    eos_token: endOfText,
    model_max_length: json.max_position_embeddings,
    clean_up_tokenization_spaces: false,
  },
});
const training = tokensOf(corpus.training);
const heldOut = tokensOf(corpus.heldOut);
console.log(`${training.length} training tokens, ${heldOut.length} held-out tokens`);

const store = checkpointFolder(join(work, "checkpoints"));
const log = await openRunLog(join(work, "log.jsonl"), Number.POSITIVE_INFINITY);
const progress = new Progress({ steps, perStep: { count: batch.batch * batch.length, unit: "tokens" } });
const data = new TokenBatches(training, { ...batch, seed });
const shaped = spec("i64", [batch.batch, batch.length]);
const initial = initDecoder(config, new Rng(seed));
const heldOutLoss = await compile(
  (params, ids, targets) => crossEntropy(decoderLogits(config, params, ids), targets),
  [initial, shaped, shaped],
  { threads },
);

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort());
const { params, stopped } = await train({
  params: initial,
  data,
  steps,
  seed,
  threads,
  loss: (weights, { ids, targets }) => crossEntropy(decoderLogits(config, weights, ids), targets),
  optimizer: optim.muon({ weightDecay: 0.1, otherRate: 0.15, others: { beta1: 0.9, beta2: 0.95, weightDecay: 0 } }),
  schedule: optim.warmUpStableDecay(0.02, steps, { warmUpSteps: 60, decaySteps: Math.round(0.35 * steps) }),
  evaluate: { every: 250, run: async (weights) => ({ heldOutLoss: await averageLoss(weights) }) },
  checkpoint: { every: 100, store },
  signal: interrupted.signal,
  onLog(entry) {
    log.write(entry);
    if (entry.kind === "evaluate" || entry.step % 10 === 0) console.log(progress.line(entry));
  },
});
if (stopped === "done") {
  const weights = mapTree(params, isHostTensor, (values) => values.cast("f16")) as typeof params;
  await saveModel(join(work, "model"), { json, weights, tokenizer });
  await writeText(join(work, "model", "held-out.txt"), corpus.heldOut.join(endOfText));
  await writeText(join(work, "model", "training-sample.txt"), sampleOf(corpus.training, 250_000).join(endOfText));
  console.log(`the model is in ${join(work, "model")}`);
}

/** Stories drawn at random, up to a number of characters in all: what comes with the model to calibrate on. */
function sampleOf(stories: readonly string[], characters: number): string[] {
  const order = new Rng(seed).fork("sample").permutation(stories.length);
  let total = 0;
  return order
    .map((i) => stories[i]!)
    .filter((story) => story.length < 12_000 && (total += story.length) <= characters);
}

async function learnedTokenizer(): Promise<unknown> {
  const path = join(work, "tokenizer.json");
  if (!existsSync(path)) {
    const learned = trainBpe(corpus.training, { vocabSize: json.vocab_size, specialTokens: [endOfText] });
    await writeText(path, JSON.stringify(learned));
  }
  return JSON.parse(readFileSync(path, "utf8"));
}

function writeText(path: string, text: string): Promise<void> {
  return writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(text)));
}

/** Stories one after the other, each behind the token that ends texts. */
function tokensOf(stories: readonly string[]): Int32Array {
  const end = tokenizer.tokenToId(endOfText)!;
  return Int32Array.from(stories.flatMap((story) => [end, ...tokenizer.encode(story)]));
}

/** Mean loss over windows of the held-out text, in nats a token. */
async function averageLoss(weights: typeof initial): Promise<number> {
  const windows = Math.floor((heldOut.length - 1) / batch.length);
  const count = Math.floor(windows / batch.batch);
  let total = 0;
  for (let i = 0; i < count; i++) {
    const starts = Array.from({ length: batch.batch }, (_, row) => (i * batch.batch + row) * batch.length);
    const { ids, targets } = tokenBatch(heldOut, starts, batch.length);
    total += (await heldOutLoss(weights, ids, targets)).item();
  }
  return total / count;
}
