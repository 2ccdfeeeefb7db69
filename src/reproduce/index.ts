/** Experiments that show each system at work. */
export * from "./registry.ts";
export * from "./reproduce.ts";
export * from "./small-language.ts";
export * from "./system.ts";
export * from "./workbench.ts";
