/** The systems, by family. States in files are in `pare/methods/node`. */

export * from "./interpret/index.ts";
export * from "./search/index.ts";
export * from "./weights/index.ts";
