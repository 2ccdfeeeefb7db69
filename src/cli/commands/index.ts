import type { Command } from "../command.ts";

/** The commands of `pare` by name; a command's file is loaded when it is asked for. */
export type CommandTable = Readonly<
  Record<string, { readonly summary: string; readonly load: () => Promise<Command> }>
>;

export const commands: CommandTable = {
  doctor: {
    summary: "show what this machine can run: devices, cores, memory, cache",
    load: async () => (await import("./doctor.ts")).doctor,
  },
};
