import { homedir } from "node:os";
import { resolve } from "node:path";
import { type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub";
import { ArgumentError } from "../tensor/errors.ts";
import { FileError, FormatError, LimitError } from "./errors.ts";
import { hubLimits } from "./hf-limits.ts";
import { checkRepositoryPath, HubError, type HubName, parseHubName } from "./hub.ts";
import { CachedRepository, type HubSettings, hubSettings, statOf } from "./hub-cache.node.ts";
import { defaultPatience, HubConnection, type HubPatience } from "./hub-connection.ts";
import { type BlobInfo, downloadBlob } from "./hub-download.node.ts";

/** How far a download has come. */
export interface HubProgress {
  /** The file that bytes have just arrived for, by path within the repository. */
  readonly file: string;
  /** Bytes in hand and announced of that file. */
  readonly received: number;
  readonly size: number;
  /** Bytes in hand and announced of all files. */
  readonly totalReceived: number;
  readonly totalSize: number;
}

export interface ResolveOptions extends Partial<HubSettings> {
  /** Branch, tag or commit, where the name does not say; `main` unless given. */
  readonly revision?: string;
  /** Files wanted, by path; by default configuration, tokenizer and safetensors weights at the top. */
  readonly files?: readonly string[];
  readonly patience?: Partial<HubPatience>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: HubProgress) => void;
}

/** Files downloaded at the same time. */
const parallel = 4;

/** The small files that a model is made of. */
const usual = /^([^/]+\.(json|jinja)|tokenizer\.model|merges\.txt|vocab\.txt|LICENSE[^/]*)$/;

/** Picks what a model is made of: nothing that runs code, no weights of other frameworks, no second copies. */
function usualFiles(paths: readonly string[]): Set<string> {
  const weights = paths.filter((path) => /^[^/]+\.safetensors$/.test(path));
  const kinds = [/^model\.safetensors$/, /^model-\d+-of-\d+\.safetensors$/, /./];
  const kind = kinds.find((name) => weights.some((path) => name.test(path)));
  return new Set(paths.filter((path) => usual.test(path)).concat(weights.filter((path) => kind?.test(path))));
}

/**
 * The local folder of a model: a folder that exists is given back as it is; otherwise `model` is a name on the hub,
 * `owner/name` or `owner/name@revision`, whose files are downloaded into the cache that all of Hugging Face's tools
 * share, unless they are there already. Offline, or when nothing answers, the cache alone decides.
 * @throws ArgumentError when the name is neither; HubError; FileError; FormatError, LimitError for a hostile listing
 */
export async function resolveModel(model: string, options: ResolveOptions = {}): Promise<string> {
  const path = resolve(model.replace(/^~(?=$|[/\\])/, homedir()));
  const found = await statOf(path);
  if (found?.isDirectory()) return path;
  if (found || /^[.~/\\]|^[A-Za-z]:/.test(model)) {
    throw new FileError(found ? `${model} is a file; give the folder that it lies in` : `there is no folder ${model}`);
  }
  const name = parseHubName(model, options.revision);
  const settings = await hubSettings(options);
  if (!URL.canParse(settings.endpoint)) {
    throw new ArgumentError(
      `the hub's address is ${JSON.stringify(settings.endpoint)}; HF_ENDPOINT is one like https://huggingface.co`,
    );
  }
  if (settings.token !== undefined && !/^[\x21-\x7e]*$/.test(settings.token)) {
    throw new ArgumentError(
      "the hub's token has characters that no token has; look at HF_TOKEN or the file that HF_TOKEN_PATH names",
    );
  }
  const cached = new CachedRepository(settings.cacheDir, name);
  const offline = (why: string): Promise<string> => fromCache(cached, name, options.files, why);
  if (settings.offline) return await offline("HF_HUB_OFFLINE is set");
  const failed = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  const connection = new HubConnection(
    settings.endpoint,
    settings.token,
    { ...defaultPatience, ...options.patience },
    signal,
  );
  let commit: string;
  try {
    commit = await commitOf(connection, name);
  } catch (error) {
    if (!(error instanceof HubError) || error.failure !== "network") throw error;
    return await offline(error.message);
  }
  const blobs = await listBlobs(connection, name, commit, options.files);
  await downloadAll(connection, cached, commit, blobs, failed, options.onProgress);
  // The name comes to stand for the commit only now, so that offline it never means a part of a model.
  await cached.setCommit(commit);
  return cached.snapshot(commit);
}

async function fromCache(
  cached: CachedRepository,
  { repository, revision }: HubName,
  files: readonly string[] | undefined,
  why: string,
): Promise<string> {
  const commit = await cached.commit();
  const wanted = files ?? ["config.json"];
  const missing: string[] = [];
  for (const file of wanted) {
    if (commit === undefined || !(await statOf(`${cached.snapshot(commit)}/${file}`))) missing.push(file);
  }
  if (commit !== undefined && missing.length === 0) return cached.snapshot(commit);
  throw new HubError(
    "offline",
    `${repository}@${revision} is not in the cache: ${commit === undefined ? "" : `${missing.join(", ")} is missing in `}${cached.folder}; and the hub was not asked, or did not answer: ${why}. Go online once to download it, set HF_HOME to where it is, or give the path of a local folder`,
  );
}

/** What the official client calls instead of `fetch`: our connection, with answers of bounded size. */
function clientFetch(connection: HubConnection, name: string): typeof fetch {
  return (input, init) =>
    connection.retrying(async () => {
      const response = await connection.get(String(input), name, Object.fromEntries(new Headers(init?.headers)));
      const chunks: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of connection.chunks(response)) {
        size += chunk.byteLength;
        if (size > hubLimits.answerBytes)
          throw new LimitError(`${name}: the hub's answer is longer than ${hubLimits.answerBytes} bytes`);
        chunks.push(chunk);
      }
      return new Response(new Blob(chunks as BlobPart[]), { status: response.status, headers: response.headers });
    });
}

async function commitOf(connection: HubConnection, { repository, revision }: HubName): Promise<string> {
  const name = `${repository}@${revision}`;
  const info = await understood(name, () =>
    modelInfo({
      name: repository,
      revision,
      hubUrl: connection.endpoint,
      additionalFields: ["sha"],
      fetch: clientFetch(connection, name),
    }),
  );
  if (!/^[0-9a-f]{40}$/.test(info.sha))
    throw new FormatError(`${name}: the hub gives ${JSON.stringify(info.sha)} as its commit`);
  return info.sha;
}

/** A file to download: its content, and its path within the repository. */
interface HubFile extends BlobInfo {
  readonly path: string;
}

/** The files to download, with what the hub announces of them. */
async function listBlobs(
  connection: HubConnection,
  { repository, revision }: HubName,
  commit: string,
  files: readonly string[] | undefined,
): Promise<HubFile[]> {
  const name = `${repository}@${revision}`;
  const listing = listFiles({
    repo: repository,
    revision: commit,
    recursive: true,
    hubUrl: connection.endpoint,
    fetch: clientFetch(connection, name),
  });
  const entries = new Map<string, ListFileEntry>();
  await understood(name, async () => {
    for await (const entry of listing) {
      if (entries.size === hubLimits.files) throw new LimitError(`${name} lists more than ${hubLimits.files} files`);
      if (entries.has(entry.path)) throw new FormatError(`${name} lists ${JSON.stringify(entry.path)} twice`);
      if (entry.type === "file") entries.set(entry.path, entry);
    }
  });
  const paths = [...entries.keys()];
  const missing = files?.find((file) => !entries.has(file));
  if (missing !== undefined) throw new HubError("missing", `${name} has no file ${missing}; it has ${some(paths)}`);
  const wanted = new Set(files ?? usualFiles(paths));
  const blobs = Array.from(wanted, (path) => {
    const { size, oid, lfs } = entries.get(path)!;
    checkRepositoryPath(path, repository);
    const hash: unknown = lfs?.oid ?? oid;
    const bytes = lfs?.size ?? size;
    if (
      typeof hash !== "string" ||
      !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash) ||
      !Number.isSafeInteger(bytes) ||
      bytes < 0
    ) {
      throw new FormatError(`${name}: the hub announces no checksum or size for ${path}`);
    }
    const url = `${connection.endpoint}/${repository}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`;
    return { path, name: `${name}, ${path}`, url, size: bytes, hash };
  });
  if (!files && !blobs.some(({ path }) => path.endsWith(".safetensors"))) {
    throw new HubError("missing", `${name} has no safetensors weights; choose from what it has: ${some(paths)}`);
  }
  return blobs;
}

const some = (names: readonly string[]): string =>
  names.slice(0, 12).join(", ") + (names.length > 12 ? `, and ${names.length - 12} more` : "");

/** Runs a call of the official client; what it throws over a malformed answer says so. */
async function understood<T>(name: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    if (cause instanceof SyntaxError || cause instanceof TypeError) {
      throw new FormatError(`${name}: the hub's answer cannot be understood: ${cause.message}`, { cause });
    }
    throw cause;
  }
}

async function downloadAll(
  connection: HubConnection,
  cached: CachedRepository,
  commit: string,
  files: readonly HubFile[],
  failed: AbortController,
  onProgress: ResolveOptions["onProgress"],
): Promise<void> {
  const totalSize = files.reduce((sum, { size }) => sum + size, 0);
  let totalReceived = 0;
  const queue = [...files];
  /** Downloads under way, by hash: files of equal content share one. */
  const underWay = new Map<string, Promise<void>>();
  const fetchOne = async (file: HubFile): Promise<void> => {
    let received = 0;
    const onBytes = (now: number): void => {
      totalReceived += now - received;
      received = now;
      onProgress?.({ file: file.path, received, size: file.size, totalReceived, totalSize });
    };
    const place = cached.blob(file.hash);
    if ((await statOf(place))?.size !== file.size) {
      const download = underWay.get(file.hash) ?? downloadBlob(connection, file, place, onBytes);
      underWay.set(file.hash, download);
      await download;
    }
    onBytes(file.size);
    await cached.link(commit, file.path, file.hash);
  };
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file && failures.length === 0; file = queue.shift()) {
      await fetchOne(file).catch((error: unknown) => {
        failures.push(error);
        failed.abort();
      });
    }
  };
  // All have ended before the first failure is told, so that nothing is still writing then.
  await Promise.all(Array.from({ length: parallel }, worker));
  if (failures.length > 0) throw failures[0];
}
