/** What Node tells of the processor's time, in microseconds; browsers tell nothing. */
interface Processor {
  cpuUsage?(): { readonly user: number; readonly system: number };
}

/**
 * Milliseconds that this process has spent computing, by all of its threads: a clock that stands still while other programs
 * have the processor. With a runtime of one thread it tells what a run costs, even on a machine that has other work. In
 * browsers, the clock on the wall.
 */
export function processorClock(): number {
  const usage = (globalThis as { process?: Processor }).process?.cpuUsage?.();
  return usage ? (usage.user + usage.system) / 1000 : performance.now();
}
