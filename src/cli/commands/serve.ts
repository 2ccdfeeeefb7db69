import { command } from "../command.ts";
import { modelArgument, modelOptions, openTextModel } from "../model.ts";
import { serverOptions, serveUntilTold } from "../server/serve.ts";
import { textSite } from "../server/text-site.ts";

/** Serves a model until it is told to end. */
export const serve = command({
  args: modelArgument,
  options: { ...serverOptions, ...modelOptions },
  graceful: true,
  async run({ args, options, json, signal }) {
    await using model = await openTextModel(args.model, options);
    return await serveUntilTold(textSite(model), { name: model.name, path: "/v1" }, { ...options, json, signal });
  },
});
