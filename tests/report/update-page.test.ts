import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { analyzeUpdates, type UpdateReport } from "../../src/methods/index.ts";
import { percent, updatePage } from "../../src/report/node.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";
import { describeInChromium } from "../support/chromium.ts";

const types = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"];

/** A model in which small entries changed most, in some rows more than in others. */
async function example(layers: number): Promise<UpdateReport> {
  const rng = new Rng(3);
  return analyzeUpdates(
    Array.from({ length: layers }, (_, layer) =>
      types.map((type) => {
        const name = `model.layers.${layer}.${type}.weight`;
        const before = rng.fork(name).normalTensor([24, 32], { std: 0.1 });
        const noise = rng.fork(`${name}!`).normalTensor([24, 32], { std: 3e-4 });
        const values = before.toArray().map((x, i) => x + noise.at(i) * (i % 96 < 32 ? 3 : 0.5));
        return { name, before, after: HostTensor.from(values, { shape: [24, 32] }) };
      }),
    ).flat(),
  );
}

describe("shares in percent", () => {
  it("have the digits that tell them from none and all", () => {
    expect([0, 1, 0.5, 0.987, 0.99996, 0.0004].map(percent)).toEqual([
      "0%",
      "100%",
      "50%",
      "98.7%",
      "99.9960%",
      "0.040%",
    ]);
  });
});

describe("the page of an update", () => {
  it("refers to nothing outside of itself, and shows text as text", async () => {
    const page = updatePage({ before: "<base>", after: "tuned", report: await example(1) });
    expect(page.match(/(src|href)="(?!data:)[^"]*"/g)).toBeNull();
    expect(page).not.toMatch(/@import|url\((?!data:)/);
    expect(page).toContain("From &#60;base&#62; to tuned");
  });
});

describeInChromium("the page of an update in a browser", (executablePath) => {
  let browser: Browser;
  const file = join(mkdtempSync(join(tmpdir(), "pare-update-")), "report.html");
  const url = `file://${file}`;
  beforeAll(async () => {
    writeFileSync(file, updatePage({ before: "base", after: "tuned", report: await example(6) }));
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  });
  afterAll(() => browser.close());

  it.each([
    ["a desk, light", 1200, "light"],
    ["a phone, dark", 360, "dark"],
  ] as const)("renders on %s", async (_where, width, colorScheme) => {
    const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme, offline: true });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => complaints.push(message.text()));
    page.on("request", (request) => request.url() === url || complaints.push(`asked for ${request.url()}`));
    await page.goto(url);
    expect(complaints).toEqual([]);
    // Six charts, and rows and columns of each type.
    const drawn = await page.$$eval("canvas", (canvases) =>
      canvases.map((canvas) => {
        const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      }),
    );
    expect(drawn).toHaveLength(6 + 2 * types.length);
    for (const colours of drawn) expect(colours).toBeGreaterThan(3);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await context.close();
  });
});
