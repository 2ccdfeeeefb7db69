import v8 from "node:v8";
import type { Participant } from "../harness.ts";
import { adamw, batch, initialWeights, model, rotaryTables, shapes, trainingBatch } from "../model.ts";
import { WebWorker } from "./webWorker.ts";

type Jax = typeof import("@jax-js/jax");
type NdArray = import("@jax-js/jax").numpy.Array;
type Weights = Record<string, NdArray>;
type Step = (state: State, rates: NdArray, data: Data) => [NdArray, State];
type State = { weights: Weights; first: Weights; second: Weights };
type Data = { tokens: NdArray; targets: NdArray; cos: NdArray; sin: NdArray };

/**
 * The model in jax-js on its WASM device, the whole step (loss, gradients, AdamW) under one `jit`. Matrices lie
 * `[out, in]`, which was the faster of the two layouts. jax-js counts references: an array that is passed is used up
 * unless it is passed as `.ref`, so the state of each step makes room for the next.
 */
export function create(threads: number): Participant {
  let jax: Jax;
  let step: Step;
  let state: State;
  let data: Data;
  let steps = 0;
  return {
    async setup() {
      allowThreads(threads);
      jax = await import("@jax-js/jax");
      await jax.init("wasm");
      jax.defaultDevice("wasm");
      step = jax.jit(makeStep(jax) as never) as unknown as Step;
      state = initialState(jax);
      data = trainingData(jax);
    },
    async step() {
      steps++;
      const corrections = [1 / (1 - adamw.beta1 ** steps), 1 / (1 - adamw.beta2 ** steps)];
      const [loss, next] = step(state, jax.numpy.array(corrections), jax.tree.ref(data));
      state = next;
      await jax.blockUntilReady(state);
      return (await loss.jsAsync()) as number;
    },
    async dispose() {
      jax.tree.dispose([state, data]);
    },
  };
}

/** jax-js looks for a browser's workers when it is loaded, and asks the navigator how many to start. */
function allowThreads(threads: number): void {
  Object.defineProperty(globalThis, "Worker", { value: WebWorker, configurable: true });
  Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: threads }, configurable: true });
  // jax-js multiplies and adds in one instruction where WebAssembly can; Node has that on by itself from version 21.
  v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
}

function initialState({ numpy: np }: Jax): State {
  const tree = (values: (name: string, shape: readonly number[]) => Float32Array): Weights =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, np.array(values(name, shape), { shape: [...shape] })]),
    );
  const start = initialWeights();
  const zeros = (): Weights => tree((name) => new Float32Array(start[name]!.length));
  return { weights: tree((name) => start[name]!), first: zeros(), second: zeros() };
}

function trainingData({ numpy: np }: Jax): Data {
  const { tokens, targets } = trainingBatch();
  const { cos, sin } = rotaryTables();
  const shape = [batch.length, 1, model.headDim / 2];
  return {
    tokens: np.array(tokens, { dtype: np.int32 }),
    targets: np.array(targets, { dtype: np.int32, shape: [batch.tokens, 1] }),
    cos: np.array(cos, { shape }),
    sin: np.array(sin, { shape }),
  };
}

function makeStep(jax: Jax): Step {
  const { numpy: np, tree, valueAndGrad } = jax;
  const loss = makeLoss(jax);
  const { lr, beta1, beta2, eps, decay } = adamw;
  return (state, corrections, data) => {
    const [value, gradients] = valueAndGrad(loss)(tree.ref(state.weights), data);
    const [firstCorrection, secondCorrection] = np.split(corrections, 2);
    const next: State = { weights: {}, first: {}, second: {} };
    for (const [name, weight] of Object.entries(state.weights)) {
      const gradient = gradients[name]!;
      const m = state.first[name]!.mul(beta1).add(gradient.ref.mul(1 - beta1));
      const v = state.second[name]!.mul(beta2).add(np.square(gradient).mul(1 - beta2));
      const root = np.sqrt(v.ref.mul(secondCorrection!.ref));
      const change = m.ref.mul(firstCorrection!.ref).div(root.add(eps));
      const shrink = weight.ndim === 2 ? 1 - lr * decay : 1;
      next.weights[name] = weight.mul(shrink).sub(change.mul(lr));
      next.first[name] = m;
      next.second[name] = v;
    }
    tree.dispose([firstCorrection!, secondCorrection!]);
    return [value, next];
  };
}

function makeLoss({ nn, numpy: np }: Jax): (weights: Weights, data: Data) => NdArray {
  const { heads, headDim, dim, vocab } = model;
  const { size, length, tokens: count } = batch;
  const norm = (x: NdArray, gain: NdArray): NdArray => {
    const square = np.mean(np.square(x.ref), -1, { keepdims: true });
    return x.mul(np.reciprocal(np.sqrt(square.add(model.normEps)))).mul(gain);
  };
  const rotate = (x: NdArray, cos: NdArray, sin: NdArray): NdArray => {
    const [a, b] = np.split(x, 2, -1) as [NdArray, NdArray];
    const turned = a.ref.mul(cos.ref).sub(b.ref.mul(sin.ref));
    return np.concatenate([turned, b.mul(cos).add(a.mul(sin))], -1);
  };

  return (weights, { tokens, targets, cos, sin }) => {
    const weight = (name: string): NdArray => weights[`${name}.weight`]!;
    const project = (x: NdArray, name: string): NdArray => np.matmul(x, weight(name).transpose());
    const byHead = (x: NdArray): NdArray => x.reshape([size, length, heads, headDim]);
    const embedding = weight("model.embed_tokens");
    let x = np.take(embedding.ref, tokens, 0);
    for (let i = 0; i < model.layers; i++) {
      const layer = `model.layers.${i}`;
      const h = norm(x.ref, weight(`${layer}.input_layernorm`));
      const q = rotate(byHead(project(h.ref, `${layer}.self_attn.q_proj`)), cos.ref, sin.ref);
      const k = rotate(byHead(project(h.ref, `${layer}.self_attn.k_proj`)), cos.ref, sin.ref);
      const v = byHead(project(h, `${layer}.self_attn.v_proj`));
      const scores = np.matmul(q.transpose([0, 2, 1, 3]), k.transpose([0, 2, 3, 1])).mul(1 / Math.sqrt(headDim));
      const causal = np.where(np.tri(length, length, 0, { dtype: np.bool }), scores, -1e9);
      const mixed = np.matmul(nn.softmax(causal, -1), v.transpose([0, 2, 1, 3])).transpose([0, 2, 1, 3]);
      x = x.add(project(mixed.reshape([count, dim]), `${layer}.self_attn.o_proj`));
      const g = norm(x.ref, weight(`${layer}.post_attention_layernorm`));
      const gate = nn.silu(project(g.ref, `${layer}.mlp.gate_proj`));
      x = x.add(project(gate.mul(project(g, `${layer}.mlp.up_proj`)), `${layer}.mlp.down_proj`));
    }
    cos.dispose();
    sin.dispose();
    const logits = np.matmul(norm(x, weight("model.norm")), embedding.transpose());
    const wanted = np.arange(vocab).reshape([1, vocab]).equal(targets);
    return np.where(wanted, nn.logSoftmax(logits, -1), 0).sum(-1).mean().mul(-1);
  };
}
