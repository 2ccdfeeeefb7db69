import { fileURLToPath } from "node:url";

/** Folder of the language model that comes with the package, used wherever none is named. */
export const embeddedModel: string = fileURLToPath(new URL("../../models/storybook", import.meta.url));
