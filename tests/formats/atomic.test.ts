import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { FileError } from "../../src/formats/errors.ts";
import { openFile, writeFileAtomic, writeFilesAtomic } from "../../src/formats/files.node.ts";

const text = (s: string): Uint8Array => new TextEncoder().encode(s);

const folders: string[] = [];
let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-atomic-"));
  folders.push(folder);
  path = join(folder, "file");
  await writeFile(path, "old");
});
afterAll(async () => {
  for (const f of folders) await rm(f, { recursive: true });
});

describe("an atomic write", () => {
  it("replaces the file when all is written, and not before", async () => {
    await writeFileAtomic(path, async (sink) => {
      await sink.write(text("new "));
      expect(await readFile(path, "utf8")).toBe("old");
      await sink.write(text("content"));
    });
    expect(await readFile(path, "utf8")).toBe("new content");
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("leaves the old file, and nothing else, when it fails midway", async () => {
    const failing = writeFileAtomic(path, async (sink) => {
      await sink.write(text("half"));
      throw new RangeError("the model is gone");
    });
    await expect(failing).rejects.toThrow(new RangeError("the model is gone"));
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("leaves the old file when the process is killed midway", async () => {
    const module = pathToFileURL(join(import.meta.dirname, "../../src/formats/files.node.ts")).href;
    const script = join(folder, "child.mts");
    await writeFile(
      script,
      `import { writeFileAtomic } from ${JSON.stringify(module)};
      await writeFileAtomic(${JSON.stringify(path)}, async (sink) => {
        await sink.write(new Uint8Array(100_000));
        process.stdout.write("half");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`,
    );
    const child = spawn(process.execPath, ["--import", "tsx", script], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await readFile(path, "utf8")).toBe("old");
    await writeFileAtomic(path, (sink) => sink.write(text("new")));
    expect(await readFile(path, "utf8")).toBe("new");
  });

  it("has one winner among writers of one file", async () => {
    const contents = Array.from({ length: 8 }, (_, i) => String(i).repeat(50_000));
    await Promise.all(contents.map((content) => writeFileAtomic(path, (sink) => sink.write(text(content)))));
    expect(contents).toContain(await readFile(path, "utf8"));
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("replaces none of several files when one of them fails", async () => {
    const failing = writeFilesAtomic([
      { path, write: (sink) => sink.write(text("new")) },
      { path: join(folder, "other"), write: () => Promise.reject(new Error("no")) },
    ]);
    await expect(failing).rejects.toThrow("no");
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["file"]);
  });

  it("replaces a link rather than what it points to, as in a download cache", async () => {
    const link = join(folder, "link");
    await symlink(path, link);
    await writeFileAtomic(link, (sink) => sink.write(text("new")));
    expect([await readFile(path, "utf8"), await readFile(link, "utf8")]).toEqual(["old", "new"]);
  });

  it("names the file and the reason when the system refuses", async () => {
    const absent = join(folder, "absent", "file");
    const error: unknown = await writeFileAtomic(absent, async () => {}).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FileError);
    expect((error as Error).message).toBe(`cannot write ${absent}: there is no such file or folder`);
    await expect(writeFileAtomic(folder, async () => {})).rejects.toThrow(`cannot replace ${folder}: it is a folder`);
  });

  // The superuser may write anywhere, so there is nothing to see as root.
  it.skipIf(process.getuid?.() === 0)("reports a folder that may not be written to", async () => {
    await chmod(folder, 0o500);
    await expect(writeFileAtomic(path, async () => {})).rejects.toThrow("permission denied");
    await chmod(folder, 0o700);
  });
});

describe("a file source", () => {
  it("reads any part, and nothing beyond the end", async () => {
    const source = await openFile(path);
    expect(source.size).toBe(3);
    expect(new TextDecoder().decode(await source.read(1, 2))).toBe("ld");
    expect(await source.read(3, 0)).toHaveLength(0);
    for (const [offset, length] of [
      [2, 2],
      [4, 0],
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, 2 ** 53],
    ] as const) {
      await expect(source.read(offset, length)).rejects.toThrow(/lie beyond its 3 bytes/);
    }
    await source.close();
  });

  it("is not made of what is not a regular file", async () => {
    await expect(openFile(folder)).rejects.toThrow(`cannot open ${folder}: it is not a regular file`);
    await expect(openFile(join(folder, "none"))).rejects.toThrow("there is no such file or folder");
    if (process.platform === "linux") await expect(openFile("/dev/zero")).rejects.toThrow("not a regular file");
  });
});
