import { aprox, fista, onLevelShare, optimalShare, piecewiseAffine, proxSgd } from "../../methods/index.ts";
import { binaryCrossEntropy, type optim } from "../../nn/index.ts";
import { compile, compileLoop } from "../../runtime/index.ts";
import { add, gather, grad, HostTensor, matmul, mul, Rng, spec, type Tensor } from "../../tensor/index.ts";
import type { Setting } from "../system.ts";

const FEATURES = 200;
const SAMPLES = 4000;
const BATCH = 64;
const STEPS = 2000;
/** Of the reference, on all the data. */
const FISTA_STEPS = 1500;
const LAMBDA = 1;

export interface TheoryResult {
  readonly aprox: Solution;
  readonly proxSgd: Solution;
  readonly fista: Solution;
  /** Share of coordinates that meet the optimality condition at FISTA's solution. */
  readonly optimal: number;
}

export interface Solution {
  readonly onLevel: number;
  readonly objective: number;
}

/**
 * Logistic regression with a regularizer whose kinks are at 0, ±0.05 and ±0.1: the last iterate of aggregate proximal
 * steps and that of plain ones on the same stream of minibatches, and FISTA on all the data.
 */
export async function theory({ seed, signal }: Setting): Promise<TheoryResult> {
  const rng = new Rng(seed).fork("logistic regression");
  const { x, y } = samples(rng);
  const reg = piecewiseAffine([0, 0.05, 0.1], [0.01, 0.03]);
  const loss = (w: Tensor, features: Tensor, labels: Tensor): Tensor => binaryCrossEntropy(matmul(features, w), labels);

  const order = rng.fork("minibatches");
  const batches = Array.from({ length: STEPS }, () =>
    HostTensor.from(BigInt64Array.from(order.integers(BATCH, SAMPLES), BigInt)),
  );
  const rates = batches.map((_, t) => 0.5 / Math.sqrt(t + 1));
  const descend = async (rule: optim.Optimizer): Promise<HostTensor> => {
    const start = { w: HostTensor.zeros("f32", [FEATURES]) };
    await using loop = await compileLoop(
      (state, ids, rate) => {
        const { w } = state.params;
        const g = grad(loss(w, gather(x, ids), gather(y, ids)), w);
        const next = rule.update({ w: g }, state.optimizer, { w }, rate);
        return { state: { params: next.params, optimizer: next.state }, result: rate };
      },
      { params: start, optimizer: rule.init(start) },
      [spec("i64", [BATCH]), spec("f32", [])],
      { threads: 1 },
    );
    for (const [t, batch] of batches.entries()) {
      if (t % 100 === 0) signal.throwIfAborted();
      await loop.run(batch, HostTensor.from(rates[t]!));
    }
    return (await loop.state()).params.w;
  };
  const reference = async (): Promise<HostTensor> => {
    const rule = fista(reg, LAMBDA);
    const start = { w: HostTensor.zeros("f32", [FEATURES]) };
    await using loop = await compileLoop(
      (state, rate) => {
        const { w } = state.params;
        const next = rule.update({ w: grad(loss(w, x as never, y as never), w) }, state.optimizer, { w }, rate);
        return { state: { params: next.params, optimizer: next.state }, result: rate };
      },
      { params: start, optimizer: rule.init(start) },
      [spec("f32", [])],
      { threads: 1 },
    );
    // The Hessian is at most a quarter of the features' second moments, which are near 1 in all directions.
    for (let t = 0; t < FISTA_STEPS; t++) await loop.run(HostTensor.from(2));
    return ((await loop.state()).optimizer.iterate as { w: HostTensor }).w;
  };

  await using judge = await compile(
    (w) => {
      const f = loss(w, x as never, y as never);
      return { objective: add(f, mul(reg.value(w), LAMBDA)), gradient: grad(f, w) };
    },
    [spec("f32", [FEATURES])],
    { threads: 1 },
  );
  const solution = async (w: HostTensor): Promise<Solution> => ({
    onLevel: onLevelShare(reg, w),
    objective: (await judge(w)).objective.item(),
  });
  const best = await reference();
  return {
    aprox: await solution(await descend(aprox(reg, LAMBDA))),
    proxSgd: await solution(await descend(proxSgd(reg, LAMBDA))),
    fista: await solution(best),
    optimal: optimalShare(reg, LAMBDA, best, (await judge(best)).gradient, 1e-3),
  };
}

/** Normal features, and labels drawn from a logistic model of small weights. */
function samples(rng: Rng): { x: HostTensor; y: HostTensor } {
  const x = rng.fork("features").normalTensor([SAMPLES, FEATURES]);
  const teacher = rng.fork("teacher").normalTensor([FEATURES], { std: 0.1 });
  const labels = rng.fork("labels");
  const [values, weights] = [x.data as Float32Array, teacher.data as Float32Array];
  const y = Float32Array.from({ length: SAMPLES }, (_, i) => {
    const logit = weights.reduce((sum, w, k) => sum + w * values[i * FEATURES + k]!, 0);
    return labels.uniform() < 1 / (1 + Math.exp(-logit)) ? 1 : 0;
  });
  return { x, y: HostTensor.from(y) };
}
