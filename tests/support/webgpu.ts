import { spawnSync } from "node:child_process";

/** Whether onnxruntime-node finds a WebGPU adapter here; asked in a process of its own, since a failed search sticks. */
export const hasWebGpu: boolean =
  spawnSync(
    process.execPath,
    [
      "--import",
      "tsx",
      "-e",
      'import("./src/runtime/index.ts").then((r) => r.loadDevice({ device: "webgpu" })).then(() => process.exit(0), () => process.exit(9))',
    ],
    { cwd: new URL("../..", import.meta.url), stdio: "ignore", timeout: 60_000 },
  ).status === 0;
