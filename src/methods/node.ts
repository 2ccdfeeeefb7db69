/** Compressions and searches whose state is kept in files. */

export * from "./interpret/updates/checkpoints.node.ts";
export * from "./search/architecture/front-page.node.ts";
export * from "./search/architecture/log.node.ts";
export * from "./weights/guard/files.node.ts";
export * from "./weights/kept.node.ts";
export * from "./weights/merge/checkpoint.node.ts";
export * from "./weights/merge/save.node.ts";
export * from "./weights/parts.node.ts";
export * from "./weights/resume.node.ts";
