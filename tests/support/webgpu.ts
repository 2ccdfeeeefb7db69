import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

/** The Vulkan driver that Debian's Chromium brings along: it computes on the CPU, so that no GPU is needed. */
const software = "/usr/lib/chromium/vk_swiftshader_icd.json";

/** Whether onnxruntime-node finds a WebGPU adapter; asked in a process of its own, since a failed search sticks. */
function findsAdapter(env: NodeJS.ProcessEnv): boolean {
  const search =
    'import("./src/runtime/index.ts").then((r) => r.loadDevice({ device: "webgpu" })).then(() => process.exit(0), () => process.exit(9))';
  const { status } = spawnSync(process.execPath, ["--import", "tsx", "-e", search], {
    cwd: new URL("../..", import.meta.url),
    env,
    stdio: "ignore",
    timeout: 60_000,
  });
  return status === 0;
}

function enableWebGpu(): boolean {
  if (findsAdapter(process.env)) return true;
  if (!existsSync(software) || !findsAdapter({ ...process.env, VK_DRIVER_FILES: software })) return false;
  process.env["VK_DRIVER_FILES"] = software;
  return true;
}

/** Whether this process can use WebGPU: on the machine's GPU or, where there is none, with the software driver. */
export const hasWebGpu: boolean = enableWebGpu();
