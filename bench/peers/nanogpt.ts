import * as tf from "@tensorflow/tfjs-core";
import type { Participant } from "../harness.ts";
import { adamw, batch, model, trainingBatch } from "../model.ts";
import { makeCrossEntropy } from "./tfjs.ts";
import { startWasm } from "./tfjsWasm.ts";

type NanoGpt = typeof import("@genai-fi/nanogpt");

/**
 * The GPT of @genai-fi/nanogpt with its own layers and AdamW at the size of the bench's model: 4.20 M parameters, the
 * same vocabulary, width, depth and heads, but a GELU MLP of four times the width in place of SwiGLU.
 */
export function create(threads: number): Participant {
  let gpt: InstanceType<NanoGpt["models"]["NanoGPTV1"]>;
  let optimizer: InstanceType<NanoGpt["training"]["AdamWOptimizer"]>;
  let loss: () => tf.Scalar;
  return {
    async setup() {
      await startWasm(threads);
      const { models, training } = await load();
      gpt = new models.NanoGPTV1({
        vocabSize: model.vocab,
        blockSize: batch.length,
        nLayer: model.layers,
        nHead: model.heads,
        nEmbed: model.dim,
        mlpFactor: 4,
      });
      optimizer = new training.AdamWOptimizer({
        learningRate: adamw.lr,
        beta1: adamw.beta1,
        beta2: adamw.beta2,
        epsilon: adamw.eps,
        weightDecay: adamw.decay,
        lossScaling: 1,
        // A constant rate.
        warmupSteps: 0,
        decayEpochs: 1,
        epochSteps: 1,
        minLearningRate: adamw.lr,
      });
      const { tokens, targets } = trainingBatch();
      const inputs = tf.tensor2d(tokens, [batch.size, batch.length], "int32");
      const crossEntropy = makeCrossEntropy(targets);
      loss = () => crossEntropy(tf.reshape(gpt.forward({ training: true }, inputs), [batch.tokens, model.vocab]));
    },
    async step() {
      const value = tf.tidy(() => {
        const { value, grads } = tf.variableGrads(loss);
        optimizer.applyGradients(grads);
        return value;
      });
      const [result] = await value.data();
      value.dispose();
      return result!;
    },
    async dispose() {
      optimizer.dispose();
      gpt.dispose();
    },
  };
}

/**
 * The package is made for browsers: it loads once tfjs takes Node for one. It brings kernels for tfjs's CPU, WebGL and
 * WebGPU backends; those for the CPU are made of tfjs operations, so that they run on WASM as well.
 */
async function load(): Promise<NanoGpt> {
  tf.env().set("IS_BROWSER", true);
  const nanogpt = await import("@genai-fi/nanogpt");
  tf.env().set("IS_BROWSER", false);
  const present = new Set(tf.getKernelsForBackend("wasm").map(({ kernelName }) => kernelName));
  for (const kernel of tf.getKernelsForBackend("cpu"))
    if (!present.has(kernel.kernelName)) tf.registerKernel({ ...kernel, backendName: "wasm" });
  return nanogpt;
}
