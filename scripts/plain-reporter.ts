import type { Reporter, TestModule } from "vitest/node";

/**
 * Ends a run with the plain line `N passed, N failed` (`, N skipped`). A file that cannot be loaded and an error
 * outside of any test count as failures, so that the line never looks better than the run was.
 */
export default class PlainReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      counts.failed += module.errors().length;
      for (const suite of module.children.allSuites()) counts.failed += suite.errors().length;
      for (const test of module.children.allTests()) counts[test.result().state]++;
    }
    // Tests that had not ended when the run was stopped were not passed over on purpose: they count as failures.
    const failed = counts.failed + counts.pending;
    const line = `${counts.passed} passed, ${failed} failed`;
    console.log(counts.skipped > 0 ? `${line}, ${counts.skipped} skipped` : line);
  }
}
