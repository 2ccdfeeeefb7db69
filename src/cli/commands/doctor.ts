import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { getHFHubCachePath } from "@huggingface/hub";
import { compile, type Device, DeviceError, RuntimeFailure } from "../../runtime/index.ts";
import { add, HostTensor } from "../../tensor/index.ts";
import { command } from "../command.ts";
import { version } from "../dispatch.ts";

const devices: readonly Device[] = ["cpu", "webgpu", "wasm"];

type Finding =
  | { readonly device: Device; readonly works: true; readonly runtime: string }
  | { readonly device: Device; readonly works: false; readonly reason: string };

/** Reports what pare finds on this machine. Devices are found by running a program on each. */
export const doctor = command({
  args: {},
  options: {},
  async run() {
    const found: Finding[] = [];
    for (const device of devices) found.push(await tryDevice(device));
    const report = {
      pare: version(),
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
      devices: found,
      processor: cpus()[0]?.model ?? "unknown",
      cores: availableParallelism(),
      memoryBytes: { total: totalmem(), free: freemem() },
      cacheFolder: getHFHubCachePath(),
    };
    const rows: readonly (readonly [string, string])[] = [
      ["pare", report.pare],
      ["node", `${report.node} on ${report.platform}`],
      ...found.map((it) => [it.device, it.works ? `works, by ${it.runtime}` : `does not work: ${it.reason}`] as const),
      ["processor", `${report.processor}, ${report.cores} cores`],
      ["memory", `${gibibytes(report.memoryBytes.total)}, ${gibibytes(report.memoryBytes.free)} free`],
      ["model cache", report.cacheFolder],
    ];
    return {
      // Everything else can do without a GPU; without a device for native code pare cannot do its work.
      ok: found.some(({ device, works }) => device === "cpu" && works),
      text: rows.map(([name, value]) => `${name.padEnd(12)} ${value}`).join("\n"),
      json: report,
    };
  },
});

async function tryDevice(device: Device): Promise<Finding> {
  const x = HostTensor.from([1, 2]);
  try {
    await using program = await compile((input) => add(input, input), [x], { device });
    const sum = await program(x);
    if (sum.at(0) !== 2 || sum.at(1) !== 4) return { device, works: false, reason: `1 + 1 came out as ${sum.at(0)}` };
    return { device, works: true, runtime: await runtimeOf(device) };
  } catch (error) {
    if (!(error instanceof DeviceError || error instanceof RuntimeFailure)) throw error;
    return { device, works: false, reason: reasonOf(error.message) };
  }
}

/** The package that runs programs on a device that works, with its version. */
async function runtimeOf(device: Device): Promise<string> {
  if (device !== "wasm") return `onnxruntime-node ${(await import("onnxruntime-node")).env.versions.node}`;
  return `onnxruntime-web ${(await import("onnxruntime-web")).env.versions.web}`;
}

/** onnxruntime puts the place in its source and the condition that failed before the reason. */
function reasonOf(message: string): string {
  return message
    .replace(/\s+/g, " ")
    .replace(/^.* was false\. /, "")
    .trim();
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
