/** What experiments work on, from disk. */
export * from "./workbench.node.ts";
