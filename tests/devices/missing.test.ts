import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

// Only on Linux can a process be told to find no GPU.
const linux = process.platform === "linux";

describe.skipIf(!linux)(`a missing GPU${linux ? "" : " (skipped: it can be hidden on Linux only)"}`, () => {
  it("is refused with the reason, or replaced with an announcement", async () => {
    const script = fileURLToPath(new URL("missing.ts", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", script], {
      env: { ...process.env, VK_DRIVER_FILES: "/nowhere" },
    });
    expect(JSON.parse(stdout)).toEqual({
      refused: {
        code: "DEVICE",
        message: expect.stringMatching(/^the device "webgpu" cannot be used here: .*adapter/s),
      },
      announced: [
        expect.stringMatching(/^pare: the device "webgpu" cannot be used \(.*adapter.*\); running on "cpu" instead$/s),
      ],
      device: "cpu",
      result: [2],
    });
  });
});
