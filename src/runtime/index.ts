/** Programs: compiling, running, devices and memory. */
export * from "./compile.ts";
export * from "./device.ts";
export * from "./errors.ts";
export * from "./loop.ts";
export { openSessions } from "./session.ts";
export { type Hosted, type SpecLeaf, type Trace, type Traced, trace } from "./trace.ts";
