import { expect, test } from "vitest";
import { linalg } from "../../bench/linalg.ts";

const run = (options: Record<string, string>) =>
  linalg.run({ rounds: 1, threads: 1, options: { ...linalg.options, ...options }, log: () => undefined });

test("each decomposition gives back its matrix", async () => {
  const { result, text } = await run({ size: "40" });
  const { size, functions } = result as { size: number; functions: Record<string, { error: number }> };
  expect([size, Object.keys(functions)]).toEqual([40, linalg.options["functions"]!.split(",")]);
  for (const { error } of Object.values(functions)) expect(error).toBeLessThan(1e-5);
  expect(text).toContain("linalg, 40 x 40");
});

test("what it cannot run is refused", async () => {
  await expect(run({ functions: "qr,lu" })).rejects.toThrow("--functions takes names of cholesky");
  await expect(run({ size: "0" })).rejects.toThrow("--size takes a whole number from 1, not 0");
});
