import { existsSync } from "node:fs";
import { describe, test } from "vitest";

const places = [
  process.env["PARE_CHROMIUM"] ?? "",
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/**
 * A group of tests that drive a Chromium, whose path they receive. Without one they are skipped, saying why; on CI,
 * where the browser is part of the machine, its absence is a failure.
 */
export function describeInChromium(name: string, body: (executablePath: string) => void): void {
  const found = places.find((path) => path !== "" && existsSync(path));
  const missing = "no Chromium found: install chromium, or give its path in PARE_CHROMIUM";
  if (found !== undefined) describe(name, () => body(found));
  else if (process.env["CI"]) {
    test(name, () => {
      throw new Error(missing);
    });
  } else describe.skip(`${name} (skipped: ${missing})`, () => body(""));
}
