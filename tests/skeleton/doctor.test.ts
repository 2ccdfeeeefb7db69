import { expect, test } from "vitest";
import { doctor } from "../../src/cli/commands/doctor.ts";

test("reports every device with its runtime or the reason why it does not work, and native code works", async () => {
  const input = { args: {}, options: {}, json: true, signal: new AbortController().signal };
  const { ok, text, json } = await doctor.run(input);
  expect(ok).toBe(true);
  expect(text).toMatch(/^cpu {10}works, by onnxruntime-node \d/m);
  const report = json as { devices: { device: string; works: boolean; reason?: string; runtime?: string }[] };
  expect(report.devices.map(({ device }) => device)).toEqual(["cpu", "webgpu", "wasm"]);
  for (const it of report.devices) expect(it.works ? it.runtime : it.reason).toMatch(/\w/);
});
