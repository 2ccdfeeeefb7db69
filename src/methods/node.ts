/** What the methods keep in files. */
export * from "./weights/resume.node.ts";
