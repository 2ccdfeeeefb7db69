import { families, systems } from "../../reproduce/index.ts";
import { command } from "../command.ts";
import { textTable } from "../table.ts";

/** Lists the published systems that pare implements. */
export const systemsCommand = command({
  args: {},
  options: { family: { type: "string", value: "name", choices: families, summary: "only those of one family" } },
  async run({ options }) {
    const all = await Promise.all(
      Object.entries(systems).map(async ([id, load]) => {
        const { name, family, summary, paper, file, claim, bar } = await load();
        return { id, name, family, summary, paper, file, claim, bar };
      }),
    );
    const wanted = all
      .filter(({ family }) => options.family === undefined || family === options.family)
      .sort((a, b) => families.indexOf(a.family) - families.indexOf(b.family));
    return {
      text: [
        textTable(
          ["system", "family", "what you get"],
          wanted.map(({ id, family, summary }) => [id, family, summary]),
        ),
        "",
        "Run the experiment of one: pare reproduce <system>",
      ].join("\n"),
      json: wanted,
    };
  },
});
