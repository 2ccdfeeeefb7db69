/** Reports as pages. */
export * from "./page.node.ts";
