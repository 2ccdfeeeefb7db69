import * as tf from "@tensorflow/tfjs-core";
import type { Participant } from "../harness.ts";
import { adamw, batch, initialWeights, model, rotaryTables, shapes, trainingBatch, transposed } from "../model.ts";
import { startWasm } from "./tfjsWasm.ts";

const { size: rows, length, tokens: count } = batch;
const { heads, headDim, dim, vocab } = model;

/** The model in plain tfjs operations, differentiated by `variableGrads`, on the WASM backend. Matrices are `[in, out]`. */
export function create(threads: number): Participant {
  const weights: Record<string, tf.Variable> = {};
  const first: Record<string, tf.Tensor> = {};
  const second: Record<string, tf.Tensor> = {};
  let loss: () => tf.Scalar;
  let steps = 0;
  return {
    async setup() {
      await startWasm(threads);
      for (const [name, values] of Object.entries(initialWeights())) {
        const shape = shapes[name]!;
        const initial = name.endsWith("_proj.weight")
          ? tf.tensor2d(transposed(values, shape), [shape[1]!, shape[0]!])
          : tf.tensor(values, [...shape]);
        weights[name] = tf.variable(initial, true, name);
        first[name] = tf.zerosLike(initial);
        second[name] = tf.zerosLike(initial);
      }
      loss = makeLoss(weights);
    },
    async step() {
      steps++;
      const value = tf.tidy(() => {
        const { value, grads } = tf.variableGrads(loss);
        for (const name of Object.keys(weights)) update(name, grads[name]!);
        return value;
      });
      const [result] = await value.data();
      value.dispose();
      return result!;
    },
    async dispose() {
      tf.disposeVariables();
    },
  };

  function update(name: string, gradient: tf.Tensor): void {
    const { lr, beta1, beta2, eps, decay } = adamw;
    const weight = weights[name]!;
    const m = tf.add(tf.mul(first[name]!, beta1), tf.mul(gradient, 1 - beta1));
    const v = tf.add(tf.mul(second[name]!, beta2), tf.mul(tf.square(gradient), 1 - beta2));
    const root = tf.sqrt(tf.mul(v, 1 / (1 - beta2 ** steps)));
    const change = tf.div(tf.mul(m, lr / (1 - beta1 ** steps)), tf.add(root, eps));
    weight.assign(tf.sub(tf.mul(weight, weight.rank === 2 ? 1 - lr * decay : 1), change));
    tf.dispose([first[name]!, second[name]!]);
    first[name] = tf.keep(m);
    second[name] = tf.keep(v);
  }
}

function makeLoss(weights: Readonly<Record<string, tf.Variable>>): () => tf.Scalar {
  const { tokens, targets } = trainingBatch();
  const inputs = tf.tensor1d(tokens, "int32");
  const crossEntropy = makeCrossEntropy(targets);
  const rotate = makeRotary();
  const mask = tf.tensor2d(
    Float32Array.from({ length: length ** 2 }, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0)),
    [length, length],
  );
  const project = (x: tf.Tensor, name: string): tf.Tensor => tf.matMul(x, weights[`${name}.weight`]!);
  const norm = (x: tf.Tensor, name: string): tf.Tensor => {
    const square = tf.mean(tf.square(x), -1, true);
    return tf.mul(tf.mul(x, tf.rsqrt(tf.add(square, model.normEps))), weights[`${name}.weight`]!);
  };
  const split = (x: tf.Tensor, order: number[]): tf.Tensor =>
    tf.transpose(tf.reshape(x, [rows, length, heads, headDim]), order);

  return () => {
    const embedding = weights["model.embed_tokens.weight"]!;
    let x: tf.Tensor = tf.gather(embedding, inputs);
    for (let i = 0; i < model.layers; i++) {
      const layer = `model.layers.${i}`;
      const h = norm(x, `${layer}.input_layernorm`);
      const q = split(rotate(project(h, `${layer}.self_attn.q_proj`)), [0, 2, 1, 3]);
      const k = split(rotate(project(h, `${layer}.self_attn.k_proj`)), [0, 2, 3, 1]);
      const v = split(project(h, `${layer}.self_attn.v_proj`), [0, 2, 1, 3]);
      const scores = tf.add(tf.mul(tf.matMul(q, k), 1 / Math.sqrt(headDim)), mask);
      const mixed = tf.transpose(tf.matMul(tf.softmax(scores), v), [0, 2, 1, 3]);
      x = tf.add(x, project(tf.reshape(mixed, [count, dim]), `${layer}.self_attn.o_proj`));
      const g = norm(x, `${layer}.post_attention_layernorm`);
      const gate = project(g, `${layer}.mlp.gate_proj`);
      const hidden = tf.mul(tf.mul(gate, tf.sigmoid(gate)), project(g, `${layer}.mlp.up_proj`));
      x = tf.add(x, project(hidden, `${layer}.mlp.down_proj`));
    }
    return crossEntropy(tf.matMul(norm(x, "model.norm"), tf.transpose(embedding)));
  };
}

/** Rotation of `[tokens, heads * headDim]`: swapping the halves is a product with a constant matrix, faster than slices. */
function makeRotary(): (x: tf.Tensor) => tf.Tensor {
  const half = headDim / 2;
  const tables = rotaryTables();
  const widen = (table: Float32Array): tf.Tensor => tf.tile(tf.tensor3d(table, [length, 1, half]), [1, 1, 2]);
  const [cos, sin] = [widen(tables.cos), widen(tables.sin)];
  const swap = new Float32Array(headDim ** 2);
  for (let i = 0; i < half; i++) {
    swap[(i + half) * headDim + i] = -1;
    swap[i * headDim + i + half] = 1;
  }
  const swapping = tf.tensor2d(swap, [headDim, headDim]);
  return (x) => {
    const byHead = tf.reshape(x, [rows, length, heads, headDim]);
    const swapped = tf.reshape(tf.matMul(tf.reshape(x, [-1, headDim]), swapping), byHead.shape);
    return tf.add(tf.mul(byHead, cos), tf.mul(swapped, sin));
  };
}

/** Mean cross-entropy; its gradient is that of softmax, which is much faster here than `logSoftmax`. */
export function makeCrossEntropy(targets: Int32Array): (logits: tf.Tensor) => tf.Scalar {
  // Cast, because the kernel writes integers whatever type is asked of it.
  const wanted = tf.cast(tf.oneHot(tf.tensor1d(targets, "int32"), vocab), "float32");
  const positions = tf.tensor1d(
    targets.map((target, i) => i * vocab + target),
    "int32",
  );
  return tf.customGrad((logits, save) => {
    const probabilities = tf.softmax(logits as tf.Tensor);
    (save as tf.GradSaveFunc)([probabilities]);
    return {
      value: tf.neg(tf.mean(tf.log(tf.gather(tf.reshape(probabilities, [-1]), positions)))),
      gradFunc: (dy: tf.Tensor, [saved]: tf.Tensor[]) => tf.mul(tf.sub(saved!, wanted), tf.div(dy, count)),
    };
  }) as (logits: tf.Tensor) => tf.Scalar;
}
