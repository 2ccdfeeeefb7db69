import { readFile } from "node:fs/promises";
import { families, systems } from "../../reproduce/index.ts";
import { command } from "../command.ts";
import { systemOf } from "../system.ts";
import { textTable } from "../table.ts";

/** Lists the published systems that pare implements, or shows what is known of one. */
export const systemsCommand = command({
  args: { system: { summary: "the one to show; default the list" } },
  options: { family: { type: "string", value: "name", choices: families, summary: "only those of one family" } },
  example: "pare systems gptq",
  async run({ args, options }) {
    const listed = await Promise.all(
      (args.system === undefined ? Object.keys(systems) : [args.system]).map(async (id) => {
        const { name, family, summary, paper, file, command, claim, bar } = await systemOf(id);
        return { id, name, family, summary, paper, file, command, claim, bar };
      }),
    );
    if (args.system !== undefined) {
      const page = new URL(`../../../docs/systems/${args.system}.md`, import.meta.url);
      return { text: (await readFile(page, "utf8")).trimEnd(), json: listed[0] };
    }
    const wanted = listed
      .filter(({ family }) => options.family === undefined || family === options.family)
      .sort((a, b) => families.indexOf(a.family) - families.indexOf(b.family));
    return {
      text: [
        textTable(
          ["system", "name", "family", "what you get"],
          wanted.map(({ id, name, family, summary }) => [id, name, family, summary]),
        ),
        "",
        "More on one, and whether its claim holds here: pare systems <system>, pare reproduce <system>",
      ].join("\n"),
      json: wanted,
    };
  },
});
