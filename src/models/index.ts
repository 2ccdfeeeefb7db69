/** Architectures. */
export * from "./decoder/config.ts";
export * from "./decoder/decoder.ts";
export * from "./decoder/weights.ts";
export * from "./errors.ts";
