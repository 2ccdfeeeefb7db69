import { beforeAll, describe, expect, it } from "vitest";
import { nodesOf } from "../../src/onnx/graph.ts";
import { importedOperators } from "../../src/onnx/operators/index.ts";
import { compile, type Device, DeviceError, trace } from "../../src/runtime/index.ts";
import {
  add,
  cast,
  flattenTree,
  grad,
  type HostTensor,
  isFloat,
  isHostTensor,
  listOps,
  mul,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";
import { expectClose } from "../support/numbers.ts";
import { hasWebGpu } from "../support/webgpu.ts";
import type { DeviceCase, Family } from "./cases.ts";
import { elements, halves } from "./elements.ts";
import { trainConvNet, trainDecoder } from "./jobs.ts";
import { layers } from "./layers.ts";
import { tables } from "./tables.ts";

const families = [...elements, ...tables, ...layers];
/** With the reason where one is left out. */
const others = ["wasm", hasWebGpu ? "webgpu" : "webgpu (skipped: no adapter, and no Chromium to lend its driver)"];
const onEach = (name: string, body: (device: Device) => Promise<void>): void => {
  for (const device of others)
    it.skipIf(device.includes("skipped"))(`${name} on ${device}`, () => body(device as Device));
};

/** What `fn` gives, and the gradient of a function of all of it. */
function probe({ fn, flat }: DeviceCase, inputs: readonly Tensor[]) {
  const values = [fn(...inputs)].flat() as Tensor[];
  if (flat) return { values };
  const loss = values.map((t, i) => sum(mul(cast(t, "f32"), add(cast(t, "f32"), 0.7 + i)))).reduce((a, b) => add(a, b));
  const gradients = grad(
    loss,
    inputs.filter((t) => isFloat(t.dtype)),
  );
  return { values, gradients };
}

type Results = Record<string, HostTensor>;

/** All cases in one program; should it fail, one by one, to learn which. */
async function runAll(cases: Readonly<Record<string, DeviceCase>>, device: Device): Promise<Record<string, Results>> {
  const list = Object.entries(cases);
  const inputs = list.map(([, c]) => c.inputs);
  try {
    await using program = await compile(
      (all) => list.map(([, c], i) => probe(c, all[i] as unknown as Tensor[])),
      [list.map(([, c]) => c.specs ?? c.inputs)],
      { device, threads: 1 },
    );
    const results = await program(inputs as never);
    return Object.fromEntries(list.map(([name], i) => [name, flattenTree(results[i], isHostTensor)]));
  } catch (error) {
    if (list.length === 1) throw new Error(`${list[0]![0]}: ${(error as Error).message}`, { cause: error });
    for (const [name, single] of list) await runAll({ [name]: single }, device);
    throw error;
  }
}

function expectEqual(
  { cases, tolerance }: Family,
  got: Record<string, Results>,
  want: Record<string, Results>,
  device: Device,
): void {
  for (const [name, wanted] of Object.entries(want)) {
    const exact = cases[name]!.tolerance ?? tolerance;
    const allowed = device === "webgpu" ? (cases[name]!.gpuTolerance ?? exact) : exact;
    for (const [path, expected] of Object.entries(wanted)) {
      const actual = got[name]![path]!;
      expect([actual.dtype, actual.shape], `${name}, ${path}`).toEqual([expected.dtype, expected.shape]);
      expectClose(actual.toArray(), expected.toArray(), isFloat(expected.dtype) ? allowed : 0, `${name}, ${path}`);
    }
  }
}

describe("every device computes the same", () => {
  it("about every operation", () => {
    const seen = new Set<string>();
    for (const { cases } of [...families, halves])
      for (const c of Object.values(cases)) {
        const { graph } = trace((...inputs) => probe(c, inputs), c.specs ?? c.inputs);
        for (const node of nodesOf(graph.outputs.map((p) => p.tensor))) seen.add(node.op);
      }
    const imported = new Set(importedOperators.map((o) => o.name));
    const missing = listOps().filter((name) => !seen.has(name) && !imported.has(name));
    expect(missing, "operations that need a case in this folder").toEqual([]);
  });

  describe.each(families)("$name", (family) => {
    let expected: Record<string, Results>;
    beforeAll(async () => {
      expected = await runAll(family.cases, "cpu");
    });
    onEach("as the CPU", async (device) => expectEqual(family, await runAll(family.cases, device), expected, device));
  });

  describe(halves.name, () => {
    onEach("as the CPU, or refused", async (device) => {
      const expected = await runAll(halves.cases, "cpu");
      const got = await runAll(halves.cases, device).catch((error: Error) => error.cause);
      if (device === "webgpu" && got instanceof DeviceError)
        expect(got.message).toBe(
          "this GPU does not compute in half precision (f16); cast to f32 or use another device",
        );
      else expectEqual(halves, got as Record<string, Results>, expected, device);
    });
  });

  describe.each([trainDecoder, trainConvNet])("$name", (job) => {
    let expected: Awaited<ReturnType<typeof job>>;
    beforeAll(async () => {
      expected = await job({ device: "cpu", threads: 1 });
    });
    onEach("as the CPU", async (device) => {
      const { losses, norm } = await job({ device, threads: 1 });
      expectClose(losses, expected.losses, 1e-4, "losses");
      expectClose([norm], [expected.norm], 1e-5, "norm of the parameters");
      expect(losses[0]).not.toBe(losses[1]);
    });
    it("as this thread in a worker", async () => {
      expect(await job({ device: "cpu", threads: 1, thread: "worker" })).toEqual(expected);
    });
  });
});
