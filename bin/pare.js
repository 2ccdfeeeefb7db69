#!/usr/bin/env node
// A checkout runs its TypeScript as it stands, so that there is nothing to build and nothing stale; the published
// package has no src and runs what was built from it.
import { existsSync } from "node:fs";

const source = new URL("../src/cli/main.ts", import.meta.url);
const checkout = existsSync(source);
if (checkout) (await import("tsx/esm/api")).register();
const { main } = await import(checkout ? source.href : new URL("../dist/cli/main.js", import.meta.url).href);
await main();
