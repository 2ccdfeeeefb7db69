/** Update rules and learning-rate schedules. */
export * from "./adafactor.ts";
export * from "./adamw.ts";
export * from "./groups.ts";
export * from "./latent.ts";
export * from "./muon.ts";
export * from "./optimizer.ts";
export * from "./schedules.ts";
export * from "./sgd.ts";
export * from "./wrappers.ts";
