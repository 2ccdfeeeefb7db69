import { readFileSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";

afterEach(() => vi.restoreAllMocks());

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("the README shows the example as it stands, and the example learns", async () => {
  expect(read("README.md")).toContain(`\`\`\`ts\n${read("examples/xor.ts")}\`\`\``);
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  await import("../../examples/xor.ts");
  const losses = log.mock.calls.map(([line]) => Number(/loss (\S+)$/.exec(line as string)?.[1]));
  expect(losses).toHaveLength(3);
  expect(losses.at(-1)).toBeLessThan(0.02);
});

test("continuous integration runs the README's command for checking everything", () => {
  const command = read(".ci/run").trimEnd().split("\n").at(-1);
  expect(read("README.md")).toContain(`To check everything that is here:\n\n\`\`\`sh\n${command}\n\`\`\``);
});
