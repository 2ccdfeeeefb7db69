import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { megabytes, reportPage } from "../../src/report/node.ts";
import { describeInChromium } from "../support/chromium.ts";
import { example } from "./example.ts";

describe("a report's page", () => {
  const page = reportPage(example);

  it("refers to nothing outside of itself", () => {
    expect(page.match(/(src|href)="(?!data:)[^"]*"/g)).toBeNull();
    expect(page).not.toMatch(/@import|url\((?!data:)/);
  });

  it("shows text as text", () => {
    expect(page).toContain("a &#60;model&#62;, compressed");
    expect(page).not.toContain("</script><b>upon");
  });

  it("leaves out columns that nothing was measured for", () => {
    expect(page).toContain("<th>decode</th>");
    expect(page).not.toContain("<th>memory</th>");
  });

  it("gives sizes in units that fit", () => {
    expect([999, 2_500_000, 3e9].map(megabytes)).toEqual(["1.0 kB", "2.5 MB", "3.00 GB"]);
  });
});

describeInChromium("a report in a browser", (executablePath) => {
  let browser: Browser;
  const url = `file://${join(mkdtempSync(join(tmpdir(), "pare-report-")), "report.html")}`;
  beforeAll(async () => {
    writeFileSync(new URL(url), reportPage(example));
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
    // Two plots, errors, sensitivity and a histogram, each with something drawn.
    const drawn = await page.$$eval("canvas", (canvases) =>
      canvases.map((canvas) => {
        const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      }),
    );
    expect(drawn).toHaveLength(5);
    for (const colours of drawn) expect(colours).toBeGreaterThan(3);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    const [ink, paper] = await page.evaluate(() => {
      const style = getComputedStyle(document.body);
      return [style.color, getComputedStyle(document.documentElement).colorScheme];
    });
    expect(paper).toBe("light dark");
    expect(ink).toBe(colorScheme === "dark" ? "rgb(255, 255, 255)" : "rgb(0, 0, 0)");
    await context.close();
  });
});
