import type { Participant } from "../harness.ts";
import { trainingStep } from "../ours.ts";
import { variants } from "./variants.ts";

/** A training step of the bench's model in one of the ways. */
export function create(threads: number, settings: unknown): Participant {
  return trainingStep(threads, variants[settings as string]!);
}
