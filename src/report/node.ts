/** Reports as pages. */

export * from "./kick-page.node.ts";
export * from "./page.node.ts";
export * from "./probe.node.ts";
export * from "./update-page.node.ts";
