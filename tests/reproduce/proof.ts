import { describe, expect, it } from "vitest";
import { reproduce, systems } from "../../src/reproduce/index.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";

/** Runs the short proof of a system, as `pare reproduce <id> --seed <seed>` does, and asks all of its checks to hold. */
export function proves(id: string, seed = 1): void {
  describe(`pare reproduce ${id}`, { timeout: 1_800_000 }, () => {
    it("holds", async () => {
      const { signal } = new AbortController();
      const setting = { seed, full: false, bench: localWorkbench(), signal, log: () => undefined };
      const { checks, holds } = await reproduce(id, await systems[id]!(), setting);
      expect(checks.filter((check) => !check.holds)).toEqual([]);
      expect(holds).toBe(true);
    });
  });
}
