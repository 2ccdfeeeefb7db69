/** Models on disk and on the hub. */
export * from "./embedded.node.ts";
export * from "./load.node.ts";
