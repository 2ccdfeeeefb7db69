import { decoderConfig, decoderLogits } from "../src/models/index.ts";
import { crossEntropy, Dense, optim, type Weight } from "../src/nn/index.ts";
import { nodesOf, toOnnx } from "../src/onnx/index.ts";
import { loadDevice } from "../src/runtime/index.ts";
import { flattenTree, HostTensor, isHostTensor, type Leaf, randomKey } from "../src/tensor/index.ts";
import { compileStep, type StepLoop } from "../src/train/index.ts";
import type { Participant } from "./harness.ts";
import { liveActivationBytes } from "./memory.ts";
import { adamw, batch, initialWeights, model, shapes, trainingBatch } from "./model.ts";

/** The bench's model in the terms of a `config.json`. */
const config = decoderConfig({
  model_type: "llama",
  vocab_size: model.vocab,
  hidden_size: model.dim,
  intermediate_size: model.ffn,
  num_hidden_layers: model.layers,
  num_attention_heads: model.heads,
  num_key_value_heads: model.heads,
  max_position_embeddings: batch.length,
  rms_norm_eps: model.normEps,
  rope_theta: model.ropeBase,
  tie_word_embeddings: true,
});

/** What is done to the model and its optimizer before a step is built of them. */
export interface Variant {
  weights(dense: Record<string, Weight | HostTensor>): Promise<Record<string, Weight | Leaf>>;
  optimizer(base: optim.Optimizer): optim.Optimizer;
}

/** pare's own training step: one graph of loss, gradients and AdamW on onnxruntime's native CPU device. */
export function create(threads: number): Participant {
  return trainingStep(threads);
}

/** The same, of a model that is trained in another way where a variant is given. */
export function trainingStep(threads: number, variant?: Variant): Participant {
  let loop: StepLoop;
  const { tokens, targets } = trainingBatch();
  const ints = (values: Int32Array): HostTensor =>
    new HostTensor("i64", [batch.size, batch.length], BigInt64Array.from(values, BigInt));
  const feed = [{ ids: ints(tokens), targets: ints(targets) }];
  const [rate, key] = [HostTensor.from(adamw.lr), randomKey(0)];
  const figures: Record<string, number> = {};

  return {
    async setup() {
      const dense: Record<string, Weight | HostTensor> = Object.fromEntries(
        Object.entries(initialWeights()).map(([name, values]) => {
          const tensor = new HostTensor("f32", shapes[name]!, values);
          return [name, tensor.shape.length === 2 ? new Dense(tensor) : tensor];
        }),
      );
      const weights = variant ? await variant.weights(dense) : dense;
      const rule = optim.adamw({
        beta1: adamw.beta1,
        beta2: adamw.beta2,
        epsilon: adamw.eps,
        weightDecay: adamw.decay,
      });
      const began = performance.now();
      loop = await compileStep({
        params: weights,
        example: feed[0]!,
        loss: (params, { ids, targets: next }) => crossEntropy(decoderLogits(config, params, ids), next),
        optimizer: variant ? variant.optimizer(rule) : rule,
        clipNorm: null,
        threads,
        spin: true,
      });
      const built = (performance.now() - began) / 1000;
      const nodes = nodesOf(loop.graph.outputs.map((p) => p.tensor)).length;
      const session = await sessionSeconds(threads);
      // Tracing, differentiating and lowering happen once, before the first step; a step itself traces nothing.
      Object.assign(figures, { buildSeconds: built, nodes, sessionSeconds: session, traceSeconds: built - session });
      const state = Object.values(flattenTree(await loop.state(), isHostTensor)).reduce((sum, t) => sum + t.bytes, 0);
      Object.assign(figures, { stateBytes: state, activationBytes: liveActivationBytes(loop.graph) });
    },
    async step() {
      const result = await loop.run(feed, rate, key);
      return result.loss!.item();
    },
    figures: () => figures,
    dispose: () => loop.dispose(),
  };

  /** Seconds that onnxruntime alone takes for the step's graph. */
  async function sessionSeconds(intraOpNumThreads: number): Promise<number> {
    const { ort, options } = await loadDevice({ threads: intraOpNumThreads });
    const bytes = toOnnx(loop.graph, { lowered: true });
    const began = performance.now();
    const session = await ort.InferenceSession.create(bytes, { ...options, graphOptimizationLevel: "all" });
    const seconds = (performance.now() - began) / 1000;
    await session.release();
    return seconds;
  }
}
