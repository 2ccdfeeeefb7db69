import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

/** A machine of CI may be a small or a busy one; a time limit is there for what hangs, not for what is slow. */
const patience = process.env["CI"] ? 4 : 1;

export default defineConfig({
  // "pare" and "pare/<floor>" are this checkout's sources, as tsconfig.json says.
  resolve: { tsconfigPaths: true },
  test: {
    pool: "forks",
    // A process holds a runtime and its models: more of them than this would rather run out of memory than be faster.
    maxWorkers: Math.min(availableParallelism(), 8),
    testTimeout: patience * 30_000,
    hookTimeout: patience * 60_000,
    reporters: ["default", "./scripts/plain-reporter.ts"],
    projects: [
      {
        extends: true,
        test: { name: "node", include: ["tests/**/*.test.ts"], exclude: ["tests/**/*.browser.test.ts"] },
      },
      {
        // Each of these drives a Chromium of its own: one at a time, and patient.
        extends: true,
        test: {
          name: "browser",
          include: ["tests/**/*.browser.test.ts"],
          fileParallelism: false,
          testTimeout: patience * 120_000,
          hookTimeout: patience * 120_000,
        },
      },
    ],
  },
});
