/** Reports as pages. */
export * from "./page.node.ts";
export * from "./probe.node.ts";
