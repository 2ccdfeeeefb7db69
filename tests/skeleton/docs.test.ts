import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { systemPages } from "../../scripts/docs.ts";
import { systems } from "../../src/reproduce/index.ts";

const folder = new URL("../../docs/systems/", import.meta.url);
const pages = await systemPages();

test("the pages of the systems are what `npm run docs` writes: run it after changing a system", () => {
  const committed = Object.fromEntries(
    readdirSync(folder).map((file) => [file, readFileSync(new URL(file, folder), "utf8")]),
  );
  expect(committed).toEqual(Object.fromEntries(pages));
});

test.each(Object.keys(systems))("the page of %s says what it is and how to use and reproduce it", async (id) => {
  const page = pages.get(`${id}.md`)!;
  const { name, claim, bar, file, command, paper } = await systems[id]!();
  for (const text of [`# ${name}\n`, claim.slice(1), bar.slice(1), file, paper.url, `npx pare reproduce ${id} --full`])
    expect(page).toContain(text);
  if (command) expect(page).toContain(`\n${command}\n`);
  expect(pages.get("README.md")).toContain(`| [${name}](${id}.md) |`);
});

test("a page shows the comments of what its source file makes public, and the example as it stands", () => {
  const page = pages.get("gptq.md")!;
  expect(page).toContain(
    "### `gptq`\n\nGPTQ (Frantar et al. 2023, Algorithm 1): columns are rounded one after the other",
  );
  expect(page).toContain("```ts\nfunction gptq(options: GptqOptions): MatrixMethod\n```");
  expect(page).toContain("readonly damping?: number;");
  expect(page).not.toContain("fallingDiagonal");
  expect(page).toContain(`\`\`\`ts\n${readFileSync("examples/gptq.ts", "utf8")}\`\`\``);
});
