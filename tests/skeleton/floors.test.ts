import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { checkFloors } from "../../scripts/check-floors.ts";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** What the check says about a package with these files, as `file:line: message`. */
function check(files: Record<string, string>): string[] {
  const root = mkdtempSync(join(tmpdir(), "pare-floors-"));
  folders.push(root);
  const manifest = JSON.stringify({ dependencies: { zod: "1.0.0", "onnxruntime-node": "1.0.0" } });
  for (const [path, text] of Object.entries({ "package.json": manifest, ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return checkFloors(root).map(
    ({ file, line, message, warning }) => `${file}:${line}: ${warning ? "warning: " : ""}${message}`,
  );
}

test("this repository keeps to its floors", () => {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  expect(checkFloors(root).filter(({ warning }) => !warning)).toEqual([]);
});

test("imports downwards, within a floor, of dependencies and by the top file are fine", () => {
  const findings = check({
    "src/tensor/index.ts": 'export * from "./tensor.ts";\n',
    "src/tensor/tensor.ts": "export const a = 1;\n",
    "src/onnx/index.ts": 'export { a } from "../tensor/index.ts";\n',
    "src/methods/weights/parq.ts": 'import { a } from "../../tensor/index.ts";\nimport { z } from "zod";\nz(a);\n',
    "src/index.ts": 'export * as onnx from "./onnx/index.ts";\n',
    "src/formats/files.node.ts": 'import "node:fs";\n',
    "src/formats/open.ts": 'import type { F } from "./files.node.ts";\ntype W = import("node:fs").Stats;\n',
    "src/formats/node.ts": 'export * from "./files.node.ts";\n',
    "src/cli/main.ts": 'import "node:fs";\nimport "onnxruntime-node";\nimport "../formats/node.ts";\n',
  });
  expect(findings).toEqual([]);
});

test("an import upwards is refused, however it is written", () => {
  const upper = { "src/nn/index.ts": "export type W = 1;\n" };
  const rule = '("../nn/index.ts"), but tensor imports no other floor';
  for (const line of [
    'import "../nn/index.ts";',
    'import type { W } from "../nn/index.ts";',
    'export * from "../nn/index.ts";',
    'const later = import("../nn/index.ts");',
    'type T = import("../nn/index.ts").W;',
  ]) {
    expect(check({ ...upper, "src/tensor/a.ts": `\n${line}\n` })).toEqual([
      `src/tensor/a.ts:2: imports the floor nn ${rule}`,
    ]);
  }
});

test("floors that stand side by side do not import each other", () => {
  const files = { "src/formats/a.ts": 'import "../linalg/b.ts";\n', "src/linalg/b.ts": 'import "../formats/a.ts";\n' };
  const allowed = "may import tensor, onnx, runtime";
  expect(check(files)).toEqual([
    `src/formats/a.ts:1: imports the floor linalg ("../linalg/b.ts"), but formats ${allowed}`,
    `src/linalg/b.ts:1: imports the floor formats ("../formats/a.ts"), but linalg ${allowed}`,
  ]);
});

test("a folder that is no floor, the top file, and files outside of src are refused", () => {
  expect(check({ "src/utils/a.ts": "" })[0]).toMatch(
    /^src\/utils\/a\.ts:1: src\/utils is not a floor; the floors are /,
  );
  expect(check({ "src/index.ts": "", "src/cli/a.ts": 'import "../index.ts";\n' })).toEqual([
    'src/cli/a.ts:1: imports "../index.ts": the files directly in src stand on all floors',
  ]);
  expect(check({ "tests/b.ts": "", "src/cli/a.ts": 'import "../../tests/b.ts";\n' })).toEqual([
    'src/cli/a.ts:1: imports "../../tests/b.ts", which is outside of src',
  ]);
  expect(check({ "src/cli/a.ts": 'import "./gone.ts";\n' })).toEqual([
    'src/cli/a.ts:1: imports "./gone.ts", which does not exist',
  ]);
});

test("code that browsers load needs no Node", () => {
  const move = "which browsers do not have; move it to a *.node.ts file";
  expect(
    check({ "src/tensor/a.ts": 'import "node:fs";\nimport "fs/promises";\nimport "onnxruntime-node";\n' }),
  ).toEqual([
    `src/tensor/a.ts:1: imports "node:fs", ${move}`,
    `src/tensor/a.ts:2: imports "fs/promises", ${move}`,
    `src/tensor/a.ts:3: imports "onnxruntime-node", ${move}`,
  ]);
  for (const line of ['import "./a.node.ts";', 'await import("./a.node.ts");', 'export * from "./a.node.ts";']) {
    expect(check({ "src/tensor/a.node.ts": "", "src/tensor/b.ts": line })).toEqual([
      'src/tensor/b.ts:1: imports "./a.node.ts", which needs Node; only node.ts and *.node.ts files may',
    ]);
  }
});

test("packages have to be dependencies", () => {
  expect(
    check({ "src/tensor/a.ts": 'import "@scope/name/deep.js";\nimport "pare/nn";\nimport "zod/mini";\n' }),
  ).toEqual([
    'src/tensor/a.ts:1: imports the package "@scope/name", which is not among the dependencies of package.json',
    'src/tensor/a.ts:2: imports "pare/nn"; inside src use a relative path',
  ]);
});

test("a long file is pointed out", () => {
  expect(check({ "src/tensor/a.ts": "\n".repeat(451) })).toEqual([
    "src/tensor/a.ts:450: warning: 451 lines, more than 450: does it still hold one thing?",
  ]);
});

test("a package without sources does not pass", () => {
  expect(check({ "src/readme.md": "" })).toEqual(["src:1: there is no TypeScript file here"]);
});
