/** What goes on inside of models. */
export * from "./updates/index.ts";
