/** What compression cost, in numbers and pictures. */
export * from "./cache-effect.ts";
export * from "./histogram.ts";
export * from "./measure.ts";
export * from "./report.ts";
