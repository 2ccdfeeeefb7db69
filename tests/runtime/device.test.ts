import { describe, expect, it } from "vitest";
import { compile, compileLoop, type Device } from "../../src/runtime/index.ts";
import {
  ArgumentError,
  add,
  grad,
  HostTensor,
  matmul,
  mean,
  mul,
  sigmoid,
  softmax,
  spec,
  square,
  sub,
} from "../../src/tensor/index.ts";
import { hasWebGpu } from "../support/webgpu.ts";

const random = (shape: readonly number[], seed: number): HostTensor => {
  const t = HostTensor.zeros("f32", shape);
  for (let i = 0, s = seed; i < t.size; i++) {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    t.set(i, s / 2 ** 31 - 1);
  }
  return t;
};

/** A few steps of gradient descent on a two-layer network: losses and final weights. */
async function trainOn(device: Device): Promise<{ losses: number[]; weights: number[] }> {
  const start = { a: random([8, 16], 1), b: random([16, 4], 2) };
  await using loop = await compileLoop(
    (s, x, y) => {
      const hidden = sigmoid(matmul(x, s.a));
      const loss = mean(square(sub(softmax(matmul(hidden, s.b)), y)));
      const g = grad(loss, s);
      return { state: { a: sub(s.a, mul(g.a, 0.5)), b: sub(s.b, mul(g.b, 0.5)) }, result: loss };
    },
    start,
    [spec("f32", [32, 8]), spec("f32", [32, 4])],
    { device },
  );
  const losses: number[] = [];
  for (let i = 0; i < 5; i++) losses.push((await loop.run(random([32, 8], 3 + i), random([32, 4], 30 + i))).item());
  const { a, b } = await loop.state();
  return { losses, weights: [...a.toArray(), ...b.toArray()] };
}

describe("devices", () => {
  it.each(["wasm", ...(hasWebGpu ? ["webgpu" as const] : [])] as const)("%s trains as the CPU does", async (device) => {
    const [here, there] = [await trainOn("cpu"), await trainOn(device)];
    for (const [i, loss] of there.losses.entries()) expect(loss).toBeCloseTo(here.losses[i]!, 4);
    for (const [i, w] of there.weights.entries()) expect(w).toBeCloseTo(here.weights[i]!, 4);
  });

  it.skipIf(hasWebGpu)("says why WebGPU cannot be used", async () => {
    await expect(compile((x) => add(x, 1), [spec("f32", [1])], { device: "webgpu" })).rejects.toThrow(
      /^the device "webgpu" cannot be used here: .*adapter/s,
    );
  });

  it.skipIf(hasWebGpu)("falls back with an announcement when asked", async () => {
    const heard: string[] = [];
    await using program = await compile((x) => add(x, 1), [spec("f32", [1])], {
      device: "webgpu",
      fallback: "cpu",
      announce: (m) => heard.push(m),
    });
    expect(program.device).toBe("cpu");
    expect((await program(HostTensor.from([1]))).toArray()).toEqual([2]);
    expect(heard).toEqual([
      expect.stringMatching(/^pare: the device "webgpu" cannot be used \(.*\); running on "cpu" instead$/s),
    ]);
  });

  it("refuses unknown devices and thread counts", async () => {
    await expect(compile((x) => x, [spec("f32", [1])], { device: "tpu" as never })).rejects.toThrow(
      new ArgumentError('there is no device "tpu"; choose cpu, webgpu or wasm'),
    );
    await expect(compile((x) => x, [spec("f32", [1])], { threads: 0 })).rejects.toThrow(
      "threads must be a whole number from 1, not 0",
    );
  });
});
