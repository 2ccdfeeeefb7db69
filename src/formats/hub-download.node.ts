import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, unlink } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { explained } from "./files.node.ts";
import { HubError } from "./hub.ts";
import type { HubConnection } from "./hub-connection.ts";

/** A file's content as the hub announces it. */
export interface BlobInfo {
  /** What the content is called in messages: repository and path. */
  readonly name: string;
  readonly url: string;
  readonly size: number;
  /** SHA-256 of the content for large files, git's SHA-1 for small ones; also its name in the cache. */
  readonly hash: string;
}

/**
 * Downloads a blob to `path`, which appears only when size and checksum are right. What an earlier try of this or of
 * a process that died has left is continued. Processes that download the same blob do so side by side, each into its
 * own file; the last to finish replaces equal content.
 * @param onBytes called with the number of bytes in hand
 * @throws HubError; FileError
 */
export async function downloadBlob(
  connection: HubConnection,
  blob: BlobInfo,
  path: string,
  onBytes: (received: number) => void,
): Promise<void> {
  await explained("make", dirname(path), mkdir(dirname(path), { recursive: true }));
  const own = `${path}.${processName()}.incomplete`;
  await claimPartial(path, own);
  // A partial file that does not lead to the right content is dropped, and the download begun once more.
  for (const isLast of [false, true]) {
    const partial = await PartialFile.open(own, blob);
    const { received: resumedAt } = partial;
    try {
      onBytes(partial.received);
      await connection.retrying(
        () => fetchRest(connection, blob, partial, onBytes),
        () => partial.received,
      );
    } catch (error) {
      await partial.close();
      await explained("rename", own, rename(own, restingPlace(path)));
      throw error;
    }
    await partial.close();
    const problem = partial.problem();
    if (!problem) {
      await explained("rename", own, rename(own, path));
      return;
    }
    await explained("delete", own, unlink(own));
    if (isLast || resumedAt === 0) {
      throw new HubError(
        "corrupt",
        `${blob.name}: ${problem}; nothing of it was kept. Try again, or tell the repository's owners`,
      );
    }
  }
}

/** Where the partial content of a stopped download waits for the next try. */
const restingPlace = (path: string): string => `${path}.pare.incomplete`;

let downloads = 0;

/** Names this download on this machine: host, process and a count. */
const processName = (): string => `${hostname()}-${process.pid}-${downloads++}`;

/** Moves partial content that nobody is writing to `own`. Moving a file succeeds for one process only. */
async function claimPartial(path: string, own: string): Promise<void> {
  const owner = new RegExp(`^${escape(`${basename(path)}.${hostname()}`)}-(\\d+)-\\d+\\.incomplete$`);
  const candidates = [restingPlace(path)];
  for (const name of await explained("list", dirname(path), readdir(dirname(path)))) {
    const pid = owner.exec(name)?.[1];
    if (pid !== undefined && !isRunning(Number(pid))) candidates.push(join(dirname(path), name));
  }
  for (const candidate of candidates) {
    const moved = rename(candidate, own).then(
      () => true,
      (cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return false;
        throw cause;
      },
    );
    if (await explained("rename", candidate, moved)) return;
  }
}

const escape = (text: string): string => text.replace(/[^\w]/g, "\\$&");

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Content that is still arriving, hashed as it comes. */
class PartialFile {
  received = 0;
  readonly #blob: BlobInfo;
  readonly #handle: FileHandle;
  readonly #path: string;
  #hash: Hash;

  private constructor(path: string, blob: BlobInfo, handle: FileHandle) {
    this.#path = path;
    this.#blob = blob;
    this.#handle = handle;
    this.#hash = newHash(blob);
  }

  /** Opens the file, made if need be, and takes in what it holds. */
  static async open(path: string, blob: BlobInfo): Promise<PartialFile> {
    const partial = new PartialFile(path, blob, await explained("write", path, open(path, "a+")));
    try {
      const content = partial.#handle.createReadStream({ start: 0, autoClose: false });
      for await (const chunk of content as AsyncIterable<Uint8Array>) partial.#take(chunk);
      return partial;
    } catch (error) {
      await partial.#handle.close();
      throw error;
    }
  }

  #take(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.received += chunk.byteLength;
  }

  async append(chunk: Uint8Array): Promise<void> {
    await explained("write", this.#path, this.#handle.appendFile(chunk));
    this.#take(chunk);
  }

  /** Forgets everything, when the server cannot continue. */
  async restart(): Promise<void> {
    await explained("write", this.#path, this.#handle.truncate(0));
    this.received = 0;
    this.#hash = newHash(this.#blob);
  }

  /** What is wrong with the content, now that all of it should be there. */
  problem(): string | undefined {
    const { size, hash } = this.#blob;
    if (this.received !== size) return `${this.received} bytes arrived where ${size} were announced`;
    const actual = this.#hash.digest("hex");
    return actual === hash ? undefined : `its checksum is ${actual} where ${hash} was announced`;
  }

  async close(): Promise<void> {
    try {
      await explained("write", this.#path, this.#handle.sync());
    } finally {
      await this.#handle.close();
    }
  }
}

/** Git hashes a file together with its kind and size. */
function newHash({ hash, size }: BlobInfo): Hash {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Appends to `partial` what is missing of it. */
async function fetchRest(
  connection: HubConnection,
  blob: BlobInfo,
  partial: PartialFile,
  onBytes: (received: number) => void,
): Promise<void> {
  if (partial.received >= blob.size) return;
  const range = partial.received > 0 ? { Range: `bytes=${partial.received}-` } : {};
  const response = await connection.get(blob.url, blob.name, { "Accept-Encoding": "identity", ...range });
  const starts = /^bytes (\d+)-/.exec(response.headers.get("Content-Range") ?? "")?.[1];
  if (response.status !== 206 || Number(starts) !== partial.received) await partial.restart();
  for await (const chunk of connection.chunks(response)) {
    await partial.append(chunk);
    onBytes(partial.received);
    // Endless answers end here.
    if (partial.received > blob.size) return;
  }
  if (partial.received < blob.size)
    throw new TypeError(`the connection closed at ${partial.received} of ${blob.size} bytes`);
}
