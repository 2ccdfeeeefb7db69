/** Guards: models that say whether a conversation breaks a policy, and small ones of them (Llama Guard 3-1B-INT4). */
export * from "./answers.ts";
export * from "./compress.ts";
export * from "./distill.ts";
export * from "./guard.ts";
export * from "./metrics.ts";
export * from "./policy.ts";
export * from "./verdicts.ts";
