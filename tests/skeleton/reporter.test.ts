import { afterEach, expect, test, vi } from "vitest";
import type { TestModule } from "vitest/node";
import PlainReporter from "../../scripts/plain-reporter.ts";

afterEach(() => vi.restoreAllMocks());

function moduleOf(states: readonly string[], errors: readonly unknown[] = [], suiteErrors: readonly unknown[] = []) {
  return {
    errors: () => errors,
    children: {
      allTests: () => states.map((state) => ({ result: () => ({ state }) })),
      allSuites: () => [{ errors: () => suiteErrors }],
    },
  } as unknown as TestModule;
}

function lastLine(modules: readonly TestModule[], unhandled: readonly unknown[] = []): unknown {
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  new PlainReporter().onTestRunEnd(modules, unhandled);
  return log.mock.lastCall?.[0];
}

test("counts tests over all files", () => {
  expect(lastLine([moduleOf(["passed", "passed"]), moduleOf(["failed", "passed"])])).toBe("3 passed, 1 failed");
  expect(lastLine([moduleOf(["passed", "skipped"])])).toBe("1 passed, 0 failed, 1 skipped");
  expect(lastLine([])).toBe("0 passed, 0 failed");
});

test("what failed outside of a test is a failure", () => {
  const error = new Error("no");
  expect(lastLine([moduleOf(["passed"], [error])])).toBe("1 passed, 1 failed");
  expect(lastLine([moduleOf(["passed"], [], [error])])).toBe("1 passed, 1 failed");
  expect(lastLine([moduleOf(["passed"])], [error])).toBe("1 passed, 1 failed");
  expect(lastLine([moduleOf(["passed", "pending"])])).toBe("1 passed, 1 failed");
});
