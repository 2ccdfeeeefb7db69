/**
 * Writes `docs/systems/`: a page for each system, from its entry in the registry and the comments of its source file, and
 * the list of them. Run it with `npm run docs` after changing either; a test holds the pages to what it writes.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import ts from "typescript";
import { type Family, families, type System, systems } from "../src/reproduce/index.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "docs", "systems");

/** The pages as they should be, by file name. */
export async function systemPages(): Promise<ReadonlyMap<string, string>> {
  const all: [string, System][] = [];
  for (const id of Object.keys(systems).sort()) all.push([id, await systems[id]!()]);
  return new Map([["README.md", list(all)], ...all.map(([id, system]) => [`${id}.md`, page(id, system)] as const)]);
}

/** Writes the pages, and removes those of systems that are gone. */
async function writePages(): Promise<void> {
  const pages = await systemPages();
  mkdirSync(folder, { recursive: true });
  for (const file of readdirSync(folder)) if (!pages.has(file)) rmSync(join(folder, file));
  for (const [file, text] of pages) writeFileSync(join(folder, file), text);
  console.log(`docs/systems: ${pages.size - 1} systems`);
}

function list(all: readonly (readonly [string, System])[]): string {
  const table = (family: Family): string[] => {
    const members = all.filter(([, system]) => system.family === family);
    if (members.length === 0) return [];
    const rows = members.map(
      ([id, { name, summary, paper }]) =>
        `| [${name}](${id}.md) | ${summary.replaceAll("|", "\\|")} | [${paper.year}](${paper.url}) |`,
    );
    return [`## ${family}`, "", "| system | what you get | paper |", "| --- | --- | --- |", ...rows, ""];
  };
  return lines(
    "# Systems",
    "",
    "The published methods that pare implements, by family. `pare systems` lists them too, `pare systems <system>` prints a",
    "page, and `pare reproduce <system>` runs the experiment of one and says whether its claim holds. These pages are written",
    "by `npm run docs`.",
    "",
    ...families.flatMap(table),
  );
}

function page(id: string, { name, family, summary, paper, file, claim, bar, command }: System): string {
  return lines(
    `# ${name}`,
    "",
    `${sentence(summary)} (Family: ${family}.)`,
    "",
    `**Paper.** ${paper.authors}: [${paper.title}](${paper.url}), ${paper.year}.`,
    "",
    `**Claim.** ${sentence(claim)}`,
    "",
    `**Source.** [\`${file}\`](../../${file})`,
    "",
    ...(command ? ["## From the command line", "", ...fenced("sh", command)] : []),
    ...program(id),
    "## Reproduction",
    "",
    `What must hold: ${sentence(bar)}`,
    "",
    ...fenced("sh", [
      `npx pare reproduce ${id}         # a short true variant`,
      `npx pare reproduce ${id} --full  # the full proof`,
    ]),
    `[The experiment](../../src/reproduce/${experiment(id)}) computes everything that it prints. \`--seed\` draws another.`,
    "",
    ...reference(file),
  );
}

/** The program of `examples/` that uses a system. */
function program(id: string): string[] {
  const file = `examples/${id}.ts`;
  if (!existsSync(join(root, file))) return [];
  const text = readFileSync(join(root, file), "utf8");
  return ["## In a program", "", ...fenced("ts", text), `[\`${file}\`](../../${file}): \`npx tsx ${file}\``, ""];
}

/** The file of a system's experiment, as the registry has it. */
function experiment(id: string): string {
  const registry = readFileSync(join(root, "src/reproduce/registry.ts"), "utf8");
  const entry = new RegExp(`^  (?:${id}|"${id}"):[^"]*import\\("\\./([^"]+)"\\)`, "m").exec(registry);
  if (!entry) throw new Error(`src/reproduce/registry.ts loads no file for "${id}"`);
  return entry[1]!;
}

/** What the source file says of the functions, classes and types that it makes public. */
function reference(file: string): string[] {
  const entries = sources(file).flatMap((path) => {
    const source = ts.createSourceFile(path, readFileSync(join(root, path), "utf8"), ts.ScriptTarget.Latest, true);
    return source.statements.flatMap((statement) => described(statement, source));
  });
  return entries.length > 0 ? ["## Reference", "", ...entries] : [];
}

/** A file, or of a folder the files that its `index.ts` makes public. */
function sources(file: string): string[] {
  if (!statSync(join(root, file)).isDirectory()) return [file];
  const index = readFileSync(join(root, file, "index.ts"), "utf8");
  return Array.from(index.matchAll(/from "\.\/([\w.-]+\.ts)"/g), ([, name]) => `${file}/${name}`).filter((path) =>
    existsSync(join(root, path)),
  );
}

function described(statement: ts.Statement, source: ts.SourceFile): string[] {
  const isFunction = ts.isFunctionDeclaration(statement);
  const isClass = ts.isClassDeclaration(statement);
  if (!isFunction && !isClass && !ts.isInterfaceDeclaration(statement) && !ts.isTypeAliasDeclaration(statement))
    return [];
  if (!statement.name || !statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) return [];
  const [doc] = ts.getJSDocCommentsAndTags(statement);
  const comment = doc && ts.isJSDoc(doc) ? doc : undefined;
  const end = isFunction && statement.body ? statement.body.getStart(source) : statement.end;
  const text = source.text.slice(statement.getStart(source), end).trim();
  const declaration = text.replace(/^export (?:async )?/, "");
  return [
    `### \`${statement.name.text}\``,
    "",
    ...(comment?.comment ? [ts.getTextOfJSDocComment(comment.comment)!, ""] : []),
    // A class's members are more than a page is for.
    ...(isClass ? [] : fenced("ts", declaration)),
    ...tags(comment?.tags ?? []),
  ];
}

function tags(all: readonly ts.JSDocTag[]): string[] {
  const told = all.flatMap((tag) => {
    const text = ts.getTextOfJSDocComment(tag.comment)?.replace(/\s+/g, " ").trim();
    if (!text) return [];
    if (ts.isJSDocParameterTag(tag)) return [`- \`${tag.name.getText()}\`: ${text}`];
    return tag.tagName.text === "throws" || tag.tagName.text === "returns" ? [`- ${tag.tagName.text} ${text}`] : [];
  });
  return told.length > 0 ? [...told, ""] : [];
}

const fenced = (language: string, text: string | readonly string[]): string[] => [
  `\`\`\`${language}`,
  ...[text].flat().flatMap((part) => part.trim().split("\n")),
  "```",
  "",
];

/** A summary or claim of the registry as a sentence. */
const sentence = (text: string): string => `${text[0]!.toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

const lines = (...all: readonly string[]): string => `${all.join("\n").trimEnd()}\n`;

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await writePages();
