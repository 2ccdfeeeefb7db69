import type { Command } from "../command.ts";

/** The commands of `pare` by name; a command's file is loaded when it is asked for. */
export type CommandTable = Readonly<
  Record<string, { readonly summary: string; readonly load: () => Promise<Command> }>
>;

export const commands: CommandTable = {
  compare: {
    summary: "measure models side by side, and draw it",
    load: async () => (await import("./compare.ts")).compare,
  },
  compress: {
    summary: "make a model small, write it for other programs, and show what that cost",
    load: async () => (await import("./compress.ts")).compress,
  },
  demo: {
    summary: "compress the model that comes with pare in several ways, and show what each cost",
    load: async () => (await import("./demo.ts")).demo,
  },
  diff: {
    summary: "show which weights training changed between two checkpoints, and how",
    load: async () => (await import("./diff.ts")).diff,
  },
  doctor: {
    summary: "show what this machine can run: devices, cores, memory, cache",
    load: async () => (await import("./doctor.ts")).doctor,
  },
  eval: {
    summary: "judge a model: perplexity, multiple choice, exact answers, programs",
    load: async () => (await import("./eval.ts")).evaluate,
  },
  guard: {
    summary: "make a safety classifier small, and judge conversations with it",
    load: async () => (await import("./guard.ts")).guard,
  },
  inspect: {
    summary: "show what a model or file consists of: tensors, sizes, representations, damage",
    load: async () => (await import("./inspect.ts")).inspect,
  },
  kick: {
    summary: "find out what compression takes from a model that perplexity does not show",
    load: async () => (await import("./kick.ts")).kick,
  },
  merge: {
    summary: "make one model of several by adding up their weights: ParamΔ, TIES, DARE, ...",
    load: async () => (await import("./merge.ts")).merge,
  },
  reproduce: {
    summary: "run the experiment of a published system and say whether its claim holds",
    load: async () => (await import("./reproduce.ts")).reproduceCommand,
  },
  rl: {
    summary: "train a model by rewards: answers that can be checked become right more often",
    load: async () => (await import("./rl.ts")).rl,
  },
  run: {
    summary: "continue a prompt, or chat, with a model",
    load: async () => (await import("./run.ts")).run,
  },
  search: {
    summary: "find smaller shapes of a model that answer sooner on this machine",
    load: async () => (await import("./search.ts")).search,
  },
  serve: {
    summary: "serve a model over HTTP with OpenAI's interface",
    load: async () => (await import("./serve.ts")).serve,
  },
  systems: {
    summary: "list the published systems that pare implements",
    load: async () => (await import("./systems.ts")).systemsCommand,
  },
  train: {
    summary: "train a model: from nothing, further, with adapters, or for few bits",
    load: async () => (await import("./train.ts")).trainCommand,
  },
};
