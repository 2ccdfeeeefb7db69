import { describe, expect, it } from "vitest";
import { reproduce, systems } from "../../src/reproduce/index.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";

/**
 * Runs the short proof of a system, as `pare reproduce <id> --seed <seed>` does, and asks all of its checks to hold.
 * @param except those that do not hold at the scale of the experiment, as its notes say, or that chance decides there
 */
export function proves(id: string, { seed = 1, except = [] as readonly string[] } = {}): void {
  describe(`pare reproduce ${id}`, { timeout: 1_800_000 }, () => {
    it("holds", async () => {
      const { signal } = new AbortController();
      const setting = { seed, full: false, bench: localWorkbench(), signal, log: () => undefined };
      const { checks, holds } = await reproduce(id, await systems[id]!(), setting);
      expect(checks.length).toBeGreaterThan(except.length);
      expect(checks.filter((check) => !check.holds && !except.includes(check.what))).toEqual([]);
      expect(checks.map(({ what }) => what)).toEqual(expect.arrayContaining([...except]));
      if (except.length === 0) expect(holds).toBe(true);
    });
  });
}
