import { describe, expect, it } from "vitest";
import { compile, openSessions } from "../../src/runtime/index.ts";
import { add, constant, gather, HostTensor, matmul, spec } from "../../src/tensor/index.ts";

/** 72 MiB that shift what is multiplied with them one place on and double it: large enough to stay outside of the file. */
const shift = (): HostTensor => {
  const n = 4344;
  const values = new Float32Array(n * n);
  for (let i = 0; i < n; i++) values[i * n + ((i + 1) % n)] = 2;
  return new HostTensor("f32", [n, n], values);
};

describe("constants beyond what a file should hold", () => {
  for (const options of [{ device: "cpu" }, { device: "wasm" }, { device: "cpu", thread: "worker" }] as const) {
    it(`are handed over in memory: ${JSON.stringify(options)}`, { timeout: 60_000 }, async () => {
      const weight = constant(shift());
      const table = constant(HostTensor.from(Array.from({ length: 400 }, (_, i) => i)));
      const program = await compile(
        (x, id) => ({ y: matmul(x, weight), entry: add(gather(table, id), 1) }),
        [spec("f32", [1, 4344]), spec("i64", [1])],
        options,
      );
      const x = HostTensor.zeros("f32", [1, 4344]);
      x.set(4343, 1.5);
      const { y, entry } = await program(x, HostTensor.from([399n]));
      expect(y.at(0)).toBe(3);
      expect([...(y.data as Float32Array)].filter((v) => v !== 0)).toHaveLength(1);
      expect(entry.at(0)).toBe(400);
      await program.dispose();
      expect(openSessions()).toBe(0);
    });
  }
});
