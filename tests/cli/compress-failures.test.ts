import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import { embeddedModel, saveModel } from "../../src/models/node.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape } from "./models.ts";
import { start } from "./process.ts";

const work = mkdtempSync(join(tmpdir(), "pare-failures-"));
const at = (...names: string[]): string => join(work, ...names);
const disk = at("disk");

/** A small disk of its own, where the system lets tests have one. */
function mountDisk(): boolean {
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
const hasDisk = process.platform === "linux" && mountDisk();
afterAll(() => {
  if (hasDisk) execFileSync("umount", [disk]);
  rmSync(work, { recursive: true });
});

const sample = readFileSync(join(embeddedModel, "training-sample.txt"), "utf8").slice(0, 30_000);
beforeAll(async () => {
  const json = { model_type: "llama", ...tinyShape, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 3 };
  const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
  const tokenizer = Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig });
  await saveModel(at("tiny"), { json, weights: tinyModel(json).weights, tokenizer });
  writeFileSync(at("text.txt"), sample);
  writeFileSync(at("empty.txt"), "");
  writeFileSync(at("short.txt"), "Once upon a time there was a small text.");
  writeFileSync(at("russian.txt"), "Жили-были старик со старухой у самого синего моря. ".repeat(400));
  writeFileSync(
    at("bytes.txt"),
    Uint8Array.from({ length: 5000 }, (_, i) => (i * 89) % 256),
  );
});

const words = (out: string, ...more: string[]): string[] => [
  ...["compress", at("tiny"), "--out", out, "--block", "16", "--windows", "4", "--length", "64", "--threads", "1"],
  ...more,
];
const calibrated = (out: string, ...more: string[]) => start(...words(out, "--calibrate", at("text.txt"), ...more));
const filesIn = (folder: string): Record<string, string> =>
  Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), "base64")]));

describe("pare compress", { timeout: 300_000 }, () => {
  it("stops at Ctrl-C and goes on layer by layer with the same command", async () => {
    const { child, ended } = calibrated(at("cut"));
    let stopped = false;
    child.stderr.on("data", (data) => {
      if (!stopped && /^1[0-9]\/23/m.test(String(data))) stopped = child.kill("SIGINT");
    });
    const first = await ended;
    expect(first.err).toContain(`stopped; the same command goes on from ${at("cut")}.state`);
    expect(first.code).toBe(130);
    expect([existsSync(at("cut")), existsSync(at("cut.partial"))]).toEqual([false, false]);
    const second = await calibrated(at("cut")).ended;
    expect(second.code).toBe(0);
    // The embedding and the first layer were done.
    const lines = second.err.split("\n").filter((line) => /^\d+\/23 /.test(line));
    expect(lines[0]).toMatch(/^9\/23 {2}model\.layers\.1\./);
    expect(existsSync(at("cut.state"))).toBe(false);
    expect((await calibrated(at("whole")).ended).code).toBe(0);
    expect(filesIn(at("cut"))).toEqual(filesIn(at("whole")));
  });

  it.skipIf(!hasDisk)("leaves the old output as it was when the disk is full (needs a tmpfs)", async () => {
    const out = join(disk, "out");
    expect((await calibrated(out).ended).code).toBe(0);
    const before = filesIn(out);
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(join(disk, "ballast"), new Uint8Array(bavail * bsize - 250_000));
    const { code, err } = await calibrated(out, "--to", "8bit", "--force").ended;
    expect(code).toBe(2);
    expect(err).toMatch(/pare: cannot write .*: the disk is full/);
    expect(filesIn(out)).toEqual(before);
    expect(existsSync(`${out}.partial`)).toBe(false);
    rmSync(join(disk, "ballast"));
    const again = await calibrated(out, "--to", "8bit", "--force").ended;
    expect(again.code).toBe(0);
    expect(filesIn(out)).not.toEqual(before);
    expect(readdirSync(disk)).toEqual(["out"]);
  });

  it.each([
    [["--calibrate", "empty.txt"], "pare: the calibration text is empty"],
    [
      ["--calibrate", "short.txt"],
      /pare: the calibration text has \d+ tokens, but 1 windows of 64 tokens take 64 tokens; give more text/,
    ],
    [["--calibrate", "bytes.txt"], /pare: .*bytes\.txt.* UTF-8/],
    [["--calibrate", "."], /pare: .* cannot be read \(EISDIR\)/],
    [["--metod", "gptq"], 'unknown option --metod (did you mean "--method"?)'],
    [["--method", "smothquant"], 'did you mean "smoothquant"?'],
    [
      ["--to", "2:5"],
      '--to is one of f16, bf16, 8bit, 4bit, 3bit, 2bit, ternary, 1bit, sparse, 2:4, lowrank, not "2:5"',
    ],
    [["--out", "text.txt"], "is a file; name a folder with --out"],
    [["--out", "tiny"], "exists; --force replaces it, --out names another"],
  ] as const)("explains %o", async (options, message) => {
    const given = options.map((word) => (/^(\w+\.txt|tiny|\.)$/.test(word) ? at(word) : word));
    const { code, err } = await start(...words(at("never")), ...given).ended;
    expect(err).toMatch(message);
    expect(code).toBe(2);
    expect(readdirSync(work).filter((name) => name.startsWith("never"))).toEqual([]);
  });

  it("warns of text that the tokenizer was not made for", async () => {
    const { err } = await start(...words(at("foreign"), "--calibrate", at("russian.txt"))).ended;
    expect(err).toMatch(
      /the calibration text takes a token for every \d\.\d\d bytes; the tokenizer was made for other text/,
    );
    // Random weights know no text.
    expect(err).toMatch(/warning: the model's loss on the calibration text is/);
  });
});
