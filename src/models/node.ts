/** Models on disk and on the hub. */
export * from "./load.node.ts";
