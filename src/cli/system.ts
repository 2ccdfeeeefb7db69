import { type System, systems } from "../reproduce/index.ts";
import { didYouMean } from "../tensor/suggest.ts";
import { UsageError } from "./errors.ts";

/** The system of that id. @throws UsageError where there is none */
export async function systemOf(id: string): Promise<System> {
  if (Object.hasOwn(systems, id)) return await systems[id]!();
  const hint = didYouMean(id, Object.keys(systems));
  throw new UsageError(`there is no system "${id}"${hint}; pare systems lists them`);
}
