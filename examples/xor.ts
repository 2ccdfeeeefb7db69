import { compile, grad, HostTensor, nn, type Tensor, tensor } from "pare";

const { add, matmul, mul, sub, tanh } = tensor;

// A model is an ordinary function over symbolic tensors.
const mlp = (p: Record<"w1" | "b1" | "w2", Tensor>, x: Tensor) => matmul(tanh(add(matmul(x, p.w1), p.b1)), p.w2);

const x = HostTensor.from([0, 0, 0, 1, 1, 0, 1, 1], { shape: [4, 2] });
const y = HostTensor.from([0n, 1n, 1n, 0n]);
let params = {
  w1: HostTensor.from([1, -1, 0.5, 0.3, -1, 1, 0.5, -0.2], { shape: [2, 4] }),
  b1: HostTensor.zeros("f32", [4]),
  w2: HostTensor.from([1, 0, 0.5, 0, 0, 1, 0, -1], { shape: [4, 2] }),
};

// So is its training step: `grad` differentiates it, `compile` turns it into an ONNX graph, onnxruntime runs it.
const descend = (p: Tensor, gradient: Tensor) => sub(p, mul(0.5, gradient));
const step = await compile(
  (params, x, y) => {
    const loss = nn.crossEntropy(mlp(params, x), y);
    const g = grad(loss, params);
    return {
      loss,
      params: { w1: descend(params.w1, g.w1), b1: descend(params.b1, g.b1), w2: descend(params.w2, g.w2) },
    };
  },
  [params, x, y],
  { device: "cpu" },
);

for (let i = 1; i <= 300; i++) {
  const result = await step(params, x, y);
  params = result.params;
  if (i % 100 === 0) console.log(`step ${i}: loss ${result.loss.at(0).toFixed(4)}`);
}
await step.dispose();
