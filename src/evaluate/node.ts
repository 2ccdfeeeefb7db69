/** Tasks in files, evaluations that go on where they stopped, and the interpreter for generated programs. */
export * from "./evaluate.node.ts";
export * from "./journal.node.ts";
export * from "./kick/loaders.node.ts";
export * from "./kick/store.node.ts";
export * from "./python.node.ts";
export * from "./tasks/data.node.ts";
export * from "./tasks/load.node.ts";
