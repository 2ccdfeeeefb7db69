import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const manifest: { exports: Record<string, unknown>; sideEffects: string[]; scripts: Record<string, string> } =
  JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** Folders of `src` that have a public face; the command line and the local page are reached through `pare` itself. */
const floors = readdirSync(join(root, "src")).filter(
  (name) => existsSync(join(root, "src", name, "index.ts")) && name !== "cli" && name !== "studio",
);

function entry(path: string): unknown {
  return { types: `./dist/${path}.d.ts`, default: `./dist/${path}.js` };
}

test("the exports map mirrors the folders of src", () => {
  const expected: Record<string, unknown> = { ".": entry("index"), "./package.json": "./package.json" };
  for (const floor of floors) {
    expected[`./${floor}`] = entry(`${floor}/index`);
    if (existsSync(join(root, "src", floor, "node.ts"))) expected[`./${floor}/node`] = entry(`${floor}/node`);
  }
  expect(manifest.exports).toEqual(expected);
});

test("modules that register operations when they are loaded are not dropped by bundlers", () => {
  const registering = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && /^defineOp\(/m.test(readFileSync(join(root, "src", file), "utf8")))
    .filter((file) => !file.startsWith("tensor"));
  expect(registering).toEqual([]);
  expect(manifest.sideEffects).toEqual(["./dist/tensor/**", "./src/tensor/**"]);
});

test("no script relies on another that npm runs before or after it, which it may be told not to", () => {
  const hooks = ["install", "prepare", "prepack", "postpack", "prepublishOnly", "dependencies"];
  const before = Object.keys(manifest.scripts).flatMap((name) => [`pre${name}`, `post${name}`]);
  expect(Object.keys(manifest.scripts).filter((name) => [...hooks, ...before].includes(name))).toEqual([]);
});

test("what the scripts run exists", () => {
  const files = Object.values(manifest.scripts).flatMap((script) => /^tsx (\S+)/.exec(script)?.[1] ?? []);
  expect(files.length).toBeGreaterThan(0);
  expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([]);
});

describe("as it is published", () => {
  let folder: string;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "pare-package-"));
    const tsc = fileURLToPath(import.meta.resolve("typescript/bin/tsc"));
    // Types are another test's business; what counts here is what the compiler writes.
    const only = ["--noCheck", "--declaration", "false", "--outDir", join(folder, "dist")];
    execFileSync(process.execPath, [tsc, "-p", join(root, "tsconfig.build.json"), ...only], { stdio: "inherit" });
    cpSync(join(root, "src"), join(folder, "dist"), { recursive: true, filter: (path) => !path.endsWith(".ts") });
    for (const name of ["package.json", "bin", "models", "CHANGELOG.md"])
      cpSync(join(root, name), join(folder, name), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const node = (...words: string[]) => execFileSync(process.execPath, words, { cwd: folder, encoding: "utf8" });

  test("every subpath can be imported", () => {
    const names = Object.keys(manifest.exports).filter((subpath) => subpath !== "./package.json");
    const imports = names.map((subpath) => `await import(${JSON.stringify(subpath.replace(".", "pare"))})`);
    const sizes = `console.log(JSON.stringify([${imports.join(",")}].map((module) => Object.keys(module).length > 0)))`;
    expect(JSON.parse(node("--input-type=module", "-e", sizes))).toEqual(names.map(() => true));
  });

  test("the command runs from what was built", () => {
    expect(node("bin/pare.js", "--help")).toContain("Usage: pare <command>");
  });

  test("installed in an empty folder, it compresses and reports without a network", () => {
    const empty = mkdtempSync(join(tmpdir(), "pare-installed-"));
    // As npm installs a package: what is in the tarball, beside what it depends on.
    const packed = execFileSync("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", empty], {
      cwd: folder,
      encoding: "utf8",
      shell: process.platform === "win32",
    });
    const modules = join(empty, "node_modules");
    mkdirSync(join(modules, "pare"), { recursive: true });
    const tarball = join(empty, packed.trim().split("\n").at(-1)!);
    execFileSync("tar", ["-xzf", tarball, "--strip-components", "1", "-C", join(modules, "pare")]);
    for (const name of readdirSync(join(root, "node_modules")))
      if (name !== "pare") symlinkSync(join(root, "node_modules", name), join(modules, name), "junction");
    const pare = (...words: string[]): string =>
      execFileSync(process.execPath, [join(modules, "pare", "bin", "pare.js"), ...words], {
        cwd: empty,
        encoding: "utf8",
        env: { ...process.env, http_proxy: "http://0.0.0.0:9", https_proxy: "http://0.0.0.0:9" },
        stdio: ["ignore", "pipe", "ignore"],
      });
    const quick = [
      "--method",
      "nearest",
      "--windows",
      "1",
      "--length",
      "64",
      "--format",
      "safetensors,onnx,gguf",
      "--report",
    ];
    expect(pare("compress", ...quick)).toMatch(/became .* times smaller: .*storybook-4bit/);
    for (const file of [
      "model.safetensors",
      "onnx/model_q4.onnx",
      "storybook-4bit.gguf",
      "tokenizer.json",
      "report.html",
    ])
      expect(existsSync(join(empty, "storybook-4bit", file)), file).toBe(true);
    rmSync(empty, { recursive: true });
  }, 300_000);
});

test.each(["", ...floors.map((floor) => `${floor}/`)])("src/%sindex.ts can be bundled for browsers", async (floor) => {
  const result = await build({
    entryPoints: [join(root, "src", floor, "index.ts")],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    logLevel: "silent",
  });
  expect(result.warnings).toEqual([]);
});
