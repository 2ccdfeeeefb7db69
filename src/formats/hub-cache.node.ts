import type { Stats } from "node:fs";
import { mkdir, readFile, stat, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { explained, writeFileAtomic } from "./files.node.ts";
import { cacheFolderName, type HubName } from "./hub.ts";

/** How to reach the hub, and where what comes from it is kept. */
export interface HubSettings {
  readonly cacheDir: string;
  /** Address of the hub, without a slash at the end. */
  readonly endpoint: string;
  readonly offline: boolean;
  /** Empty to go without one. */
  readonly token: string | undefined;
}

/**
 * The settings in force, by the environment variables that Python's `huggingface_hub` knows: HF_HUB_CACHE, HF_HOME,
 * XDG_CACHE_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_TOKEN_PATH.
 * @throws FileError when the file with the token cannot be read
 */
export async function hubSettings(
  given: Partial<HubSettings> = {},
  env = process.env,
  home = homedir(),
): Promise<HubSettings> {
  const path = (name: string): string | undefined => env[name]?.replace(/^~(?=$|[/\\])/, home) || undefined;
  const hfHome = path("HF_HOME") ?? join(path("XDG_CACHE_HOME") ?? join(home, ".cache"), "huggingface");
  const isOn = (name: string): boolean => /^(1|on|yes|true)$/i.test(env[name] ?? "");
  return {
    cacheDir: given.cacheDir ?? path("HF_HUB_CACHE") ?? path("HUGGINGFACE_HUB_CACHE") ?? join(hfHome, "hub"),
    endpoint: (given.endpoint ?? (env["HF_ENDPOINT"] || "https://huggingface.co")).replace(/\/+$/, ""),
    offline: given.offline ?? (isOn("HF_HUB_OFFLINE") || isOn("TRANSFORMERS_OFFLINE")),
    token: given.token ?? (env["HF_TOKEN"]?.trim() || (await readText(path("HF_TOKEN_PATH") ?? join(hfHome, "token")))),
  };
}

/** The trimmed content of a small text file, or undefined when there is none. */
async function readText(path: string): Promise<string | undefined> {
  const read = readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return "";
    throw cause;
  });
  return (await explained("read", path, read)).trim() || undefined;
}

const commitHash = /^[0-9a-f]{40}$/;

/**
 * A repository's part of the cache, laid out as Python's `huggingface_hub` does: `blobs/` holds contents by their
 * hash, `snapshots/<commit>/` links to them by name, and `refs/<revision>` holds the commit that a name stands for.
 */
export class CachedRepository {
  readonly folder: string;
  readonly #name: HubName;

  constructor(cacheDir: string, name: HubName) {
    this.folder = join(cacheDir, cacheFolderName(name.repository));
    this.#name = name;
  }

  /** The commit that the revision stood for when it was last downloaded, or undefined. */
  async commit(): Promise<string | undefined> {
    const { revision } = this.#name;
    if (commitHash.test(revision)) return revision;
    const commit = await readText(join(this.folder, "refs", revision));
    return commit !== undefined && commitHash.test(commit) ? commit : undefined;
  }

  /** Remembers the commit that the revision stands for. @throws FileError */
  async setCommit(commit: string): Promise<void> {
    const { revision } = this.#name;
    if (revision === commit || (await this.commit()) === commit) return;
    const path = join(this.folder, "refs", revision);
    await explained("make", dirname(path), mkdir(dirname(path), { recursive: true }));
    await writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(commit)));
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  blob(hash: string): string {
    return join(this.folder, "blobs", hash);
  }

  /** Makes `path` of a snapshot stand for a blob: by a link, or by a copy where there are none. @throws FileError */
  async link(commit: string, path: string, hash: string): Promise<void> {
    const place = join(this.snapshot(commit), path);
    await explained("make", dirname(place), mkdir(dirname(place), { recursive: true }));
    const linked = symlink(relative(dirname(place), this.blob(hash)), place).catch(
      async (cause: NodeJS.ErrnoException) => {
        // Another process may have linked it; Windows may forbid links.
        if (cause.code === "EEXIST") return;
        if (cause.code !== "EPERM") throw cause;
        const content = await readFile(this.blob(hash));
        await writeFileAtomic(place, (sink) => sink.write(content));
      },
    );
    await explained("link", place, linked);
  }
}

/** What is at `path`, links followed, or undefined when there is nothing. @throws FileError */
export async function statOf(path: string): Promise<Stats | undefined> {
  const found = stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (/^(ENOENT|ENOTDIR|ENAMETOOLONG|ERR_INVALID_ARG_VALUE)$/.test(cause.code ?? "")) return undefined;
    throw cause;
  });
  return await explained("open", path, found);
}
