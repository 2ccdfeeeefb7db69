import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Outcome, trainConvNet, trainDecoder } from "../devices/jobs.ts";
import { describeInChromium } from "../support/chromium.ts";
import { expectClose } from "../support/numbers.ts";
import type { Scenarios } from "./engine.page.ts";
import { type Site, serveSite } from "./site.ts";

const quiet = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** A GPU made of software, which Chromium brings along. */
const softwareGpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

describeInChromium("the engine in a browser", (executablePath) => {
  let site: Site;
  const open: Browser[] = [];
  /** What went wrong on the pages, by their own account. */
  const complaints: string[] = [];

  async function visit(
    flags: readonly string[],
    prepare: (page: Page) => Promise<unknown> = async () => {},
  ): Promise<Page> {
    const browser = await chromium.launch({ executablePath, args: [...quiet, ...flags] });
    open.push(browser);
    const page = await browser.newPage();
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    await prepare(page);
    await page.goto(site.url);
    return page;
  }

  function run<N extends keyof Scenarios>(
    page: Page,
    name: N,
    ...args: Parameters<Scenarios[N]>
  ): Promise<Awaited<ReturnType<Scenarios[N]>>> {
    return page.evaluate(
      ([n, given]) =>
        (globalThis as unknown as { scenarios: Record<string, (...a: unknown[]) => never> }).scenarios[n]!(...given),
      [name, args] as const,
    );
  }

  let page: Page;
  beforeAll(async () => {
    site = await serveSite();
    page = await visit(softwareGpu);
  });
  afterAll(async () => {
    for (const browser of open) await browser.close();
    site.close();
  });

  it("is bundled without anything of Node's", () => {
    const { inputs, outputs } = site.metafile;
    expect(Object.values(outputs).flatMap((o) => o.imports.filter((i) => i.external))).toEqual([]);
    expect(Object.keys(inputs).filter((path) => /[./]node\.ts$|onnxruntime-node/.test(path))).toEqual([]);
    expect(Object.values(inputs).flatMap((i) => i.imports.filter(({ path }) => path.startsWith("node:")))).toEqual([]);
  });

  it("offers what the tests need", async () => {
    expect(await run(page, "isolated")).toBe(true);
    expect(await run(page, "hasWebGpu")).toBe(true);
  });

  it.each([
    [{ device: "wasm" }],
    [{ device: "wasm", thread: "worker" }],
    [{ device: "webgpu" }],
    [{ device: "webgpu", thread: "worker" }],
  ] as const)("trains as Node does: %o", async (options) => {
    const expected = await trainDecoder({ device: "cpu", threads: 1 });
    expectOutcome(await run(page, "trainDecoder", options), expected);
  });

  it("trains convolutions as Node does", async () => {
    const expected = await trainConvNet({ device: "cpu", threads: 1 });
    for (const device of ["wasm", "webgpu"] as const)
      expectOutcome(await run(page, "trainConvNet", { device }), expected);
  });

  it("lets the page live while a worker works", async () => {
    const here = await run(page, "work", { threads: 1 });
    const there = await run(page, "work", { threads: 1, thread: "worker" });
    expect(there.result).toBe(here.result);
    expect(here.ticks).toBeLessThan(5);
    expect(there.ticks).toBeGreaterThan(5);
  });

  it.each(["here", "worker"] as const)("says that the CPU's native code is not to be had (%s)", async (thread) => {
    expect((await run(page, "ask", { device: "cpu", thread })).error).toEqual({
      code: "DEVICE",
      message: 'the device "cpu" is native code and needs Node; in a browser use "wasm" or "webgpu"',
    });
    expect((await run(page, "ask", { device: "tpu" as never, thread })).error).toEqual({
      code: "ARGUMENT",
      message: 'there is no device "tpu"; choose cpu, webgpu or wasm',
    });
  });

  it.each(["here", "worker"] as const)("says that there is no GPU, or takes another device (%s)", async (thread) => {
    const without = await visit([]);
    const reason = /Failed to get GPU adapter/;
    expect((await run(without, "ask", { device: "webgpu", thread })).error).toEqual({
      code: "DEVICE",
      message: expect.stringMatching(reason),
    });
    const { device, result, announced } = await run(without, "ask", { device: "webgpu", fallback: "wasm", thread });
    expect({ device, result }).toEqual({ device: "wasm", result: [2] });
    expect(announced).toEqual([
      expect.stringMatching(/^pare: the device "webgpu" cannot be used \(.*adapter.*\); running on "wasm" instead$/s),
    ]);
  });

  it("says so where the browser knows no WebGPU", async () => {
    const old = await visit([], (page) => page.addInitScript(() => Reflect.deleteProperty(Navigator.prototype, "gpu")));
    expect((await run(old, "ask", { device: "webgpu" })).error?.message).toBe(
      'this browser offers no WebGPU; use the device "wasm"',
    );
  });

  it("gives no reason to complain", () => {
    expect(complaints).toEqual([]);
  });

  it("says what is missing where the worker's script is not served", async () => {
    const bare = await visit([], (page) =>
      page.route("**/session.worker.js", (route) => route.fulfill({ status: 404 })),
    );
    expect((await run(bare, "ask", { thread: "worker" })).error).toEqual({
      code: "RUNTIME",
      message:
        "the worker thread ended: its script session.worker.js could not be loaded; it belongs beside the script that uses it",
    });
  });
});

function expectOutcome(got: Outcome, expected: Outcome): void {
  expectClose(got.losses, expected.losses, 1e-4, "losses");
  expectClose([got.norm], [expected.norm], 1e-5, "norm of the parameters");
}
