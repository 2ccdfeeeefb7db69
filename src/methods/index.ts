/** The systems, by family. States in files are in `pare/methods/node`. */
export * from "./search/index.ts";
export * from "./weights/index.ts";
