/**
 * Holds the house in order: `src/` is made of floors, and code imports only from its own floor and those below.
 * Run it with `npm run floors`; it prints `file:line: what is wrong` and exits with 1 when something is.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join, relative, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";
import ts from "typescript";

/** Each floor with the floors it stands on, lowest first; what those stand on is allowed as well. */
const floors: Readonly<Record<string, readonly string[]>> = {
  tensor: [],
  onnx: ["tensor"],
  runtime: ["onnx"],
  formats: ["runtime"],
  linalg: ["runtime"],
  nn: ["runtime", "linalg"],
  models: ["nn", "formats"],
  generate: ["models"],
  train: ["generate"],
  methods: ["train"],
  evaluate: ["methods"],
  report: ["evaluate"],
  reproduce: ["report"],
  studio: ["reproduce"],
  cli: ["studio"],
};

/**
 * The one floor that only ever runs in Node. Elsewhere Node-only code is in files named `*.node.ts`, which a floor's
 * `node.ts` makes public.
 */
const nodeFloor = "cli";
/** Dependencies that browsers cannot load. */
const nodePackages: ReadonlySet<string> = new Set(["onnxruntime-node", "cli-progress", "cli-table3"]);
const longestFile = 450;

export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly message: string;
  /** Printed, but not counted as a failure. */
  readonly warning?: boolean;
}

interface Import {
  readonly specifier: string;
  readonly line: number;
  /** Whether only types are taken, so that nothing is loaded when the code runs. */
  readonly typeOnly: boolean;
}

/** All findings in the package at `root`, which has a `package.json` and a `src` folder. */
export function checkFloors(root: string): Finding[] {
  const manifest: { dependencies?: Record<string, string> } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  const dependencies = new Set(Object.keys(manifest.dependencies ?? {}));
  const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.tsx?$/.test(file))
    .map((file) => `src/${file.split(sep).join("/")}`)
    .sort();
  if (files.length === 0) return [{ file: "src", line: 1, message: "there is no TypeScript file here" }];
  return files.flatMap((file) => checkFile(root, file, dependencies));
}

function checkFile(root: string, file: string, dependencies: ReadonlySet<string>): Finding[] {
  const findings: Finding[] = [];
  const text = readFileSync(join(root, file), "utf8");
  const lines = text.split("\n").length - 1;
  if (lines > longestFile) {
    const message = `${lines} lines, more than ${longestFile}: does it still hold one thing?`;
    findings.push({ file, line: longestFile, message, warning: true });
  }
  const floor = floorOf(file);
  if (floor !== undefined && !(floor in floors)) {
    return [
      { file, line: 1, message: `src/${floor} is not a floor; the floors are ${Object.keys(floors).join(", ")}` },
    ];
  }
  for (const found of importsOf(file, text)) {
    const message = found.specifier.startsWith(".")
      ? wrongRelative(root, file, floor, found)
      : wrongPackage(file, floor, found, dependencies);
    if (message) findings.push({ file, line: found.line, message });
  }
  return findings;
}

/** The floor that a file is on; `undefined` for the files directly in `src`, which may import every floor. */
function floorOf(file: string): string | undefined {
  const [, floor, ...inside] = file.split("/");
  return inside.length > 0 ? floor : undefined;
}

function runsInBrowsers(file: string, floor: string | undefined): boolean {
  return floor !== nodeFloor && !/[./]node\.ts$/.test(file);
}

function floorsBelow(floor: string): Set<string> {
  const below = new Set<string>();
  for (const next of floors[floor]!) {
    below.add(next);
    for (const deeper of floorsBelow(next)) below.add(deeper);
  }
  return below;
}

function wrongRelative(root: string, file: string, floor: string | undefined, found: Import): string | undefined {
  const { specifier, typeOnly } = found;
  const target = relative(root, resolve(root, dirname(file), specifier))
    .split(sep)
    .join("/");
  if (!target.startsWith("src/")) {
    return target === "package.json" ? undefined : `imports "${specifier}", which is outside of src`;
  }
  if (!existsSync(join(root, target))) return `imports "${specifier}", which does not exist`;
  const from = floorOf(target);
  if (floor !== undefined && from === undefined) {
    return `imports "${specifier}": the files directly in src stand on all floors`;
  }
  if (floor !== undefined && from !== undefined && from !== floor && !floorsBelow(floor).has(from)) {
    const allowed = Object.keys(floors).filter((name) => floorsBelow(floor).has(name));
    const stands = allowed.length > 0 ? `may import ${allowed.join(", ")}` : "imports no other floor";
    return `imports the floor ${from} ("${specifier}"), but ${floor} ${stands}`;
  }
  if (!typeOnly && runsInBrowsers(file, floor) && !runsInBrowsers(target, from)) {
    return `imports "${specifier}", which needs Node; only node.ts and *.node.ts files may`;
  }
  return undefined;
}

function wrongPackage(
  file: string,
  floor: string | undefined,
  { specifier, typeOnly }: Import,
  dependencies: ReadonlySet<string>,
): string | undefined {
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  const needsNode = isBuiltin(specifier) || nodePackages.has(name);
  if (needsNode && !typeOnly && runsInBrowsers(file, floor)) {
    return `imports "${specifier}", which browsers do not have; move it to a *.node.ts file`;
  }
  if (isBuiltin(specifier) || dependencies.has(name)) return undefined;
  if (name === "pare") return `imports "${specifier}"; inside src use a relative path`;
  return `imports the package "${name}", which is not among the dependencies of package.json`;
}

/** Every module that a file names: imports, re-exports, `import()` and `import("...").Type`. */
function importsOf(file: string, text: string): Import[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest);
  const found: Import[] = [];
  const add = (node: ts.Node, name: ts.Node | undefined, typeOnly: boolean): void => {
    if (!name || !ts.isStringLiteralLike(name)) return;
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    found.push({ specifier: name.text, line, typeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node, node.moduleSpecifier, node.importClause?.isTypeOnly === true);
    else if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isImportTypeNode(node))
      add(node, ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined, true);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node, node.arguments[0], false);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const findings = checkFloors(process.cwd());
  for (const { file, line, message, warning } of findings) {
    console.log(`${file}:${line}: ${warning ? "warning: " : ""}${message}`);
  }
  if (findings.some(({ warning }) => !warning)) process.exitCode = 1;
}
