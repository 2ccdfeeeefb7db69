import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ResolveOptions, resolveModel } from "../../src/formats/hub.node.ts";
import { type HubFailure, parseHubName } from "../../src/formats/hub.ts";
import { hubSettings } from "../../src/formats/hub-cache.node.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";

interface FakeFile {
  readonly content: Uint8Array;
  /** Large files are kept elsewhere and named by their SHA-256. */
  readonly large: boolean;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A server that speaks the hub's paths, with a second one that large files are redirected to. */
class FakeHub {
  readonly files = new Map<string, FakeFile>();
  readonly requests: { path: string; headers: IncomingMessage["headers"] }[] = [];
  /** Asked first, for injected failures; true means that it has answered. */
  intercept: Handler = () => false;
  interceptContent: Handler = () => false;
  /** Paths that the listing has beside those of `files`. */
  extraPaths: string[] = [];
  readonly #hub = createServer((request, response) => this.#answer(request, response));
  readonly #content = createServer((request, response) => this.#answerContent(request, response));

  async start(): Promise<this> {
    for (const server of [this.#hub, this.#content]) {
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    return this;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#content]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  get endpoint(): string {
    return addressOf(this.#hub);
  }

  add(path: string, content: string | Uint8Array, large = false): this {
    this.files.set(path, { content: typeof content === "string" ? new TextEncoder().encode(content) : content, large });
    return this;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(request.url ?? "");
    this.requests.push({ path, headers: request.headers });
    if (this.intercept(request, response)) return;
    if (path.startsWith("/api/models/org/tiny/revision/")) {
      const revision = path.slice("/api/models/org/tiny/revision/".length).replace(/\?.*/, "");
      if (!["main", "v1", "refs/pr/1", commit].includes(revision)) refuse(response, 404, "RevisionNotFound");
      else json(response, { _id: "1", id: "org/tiny", sha: commit, lastModified: "2026-01-01T00:00:00Z" });
      return;
    }
    if (path.startsWith(`/api/models/org/tiny/tree/${commit}`)) {
      const entries = [...this.files].map(([name, { content, large }]) => ({
        type: "file",
        path: name,
        size: content.length,
        oid: gitHash(content),
        ...(large && { lfs: { oid: sha256(content), size: content.length, pointerSize: 100 } }),
      }));
      const extra = this.extraPaths.map((name) => ({ type: "file", path: name, size: 1, oid: commit }));
      const page = Number(new URL(path, this.endpoint).searchParams.get("cursor") ?? 0);
      const all = [...entries, ...extra];
      if (page + 3 < all.length)
        response.setHeader(
          "Link",
          `<${this.endpoint}/api/models/org/tiny/tree/${commit}?cursor=${page + 3}>; rel="next"`,
        );
      json(response, all.slice(page, page + 3));
      return;
    }
    const prefix = `/org/tiny/resolve/${commit}/`;
    const file = path.startsWith(prefix) ? this.files.get(path.slice(prefix.length)) : undefined;
    if (!file) {
      refuse(response, 404, path.startsWith("/api") ? "RepoNotFound" : "EntryNotFound");
      return;
    }
    response.setHeader("X-Repo-Commit", commit);
    if (file.large) {
      response.setHeader("X-Linked-ETag", `"${sha256(file.content)}"`);
      response.setHeader("X-Linked-Size", file.content.length);
      response.writeHead(302, { Location: `${addressOf(this.#content)}/${path.slice(prefix.length)}?signed=1` }).end();
      return;
    }
    response.setHeader("ETag", `"${gitHash(file.content)}"`);
    send(request, response, file.content);
  }

  #answerContent(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "").replace(/\?.*/, "");
    this.requests.push({ path: `content:${path}`, headers: request.headers });
    if (this.interceptContent(request, response)) return;
    send(request, response, this.files.get(path.slice(1))!.content);
  }
}

const addressOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const gitHash = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code?: string): true {
  response.writeHead(status, code ? { "X-Error-Code": code } : {}).end("no");
  return true;
}

function send(request: IncomingMessage, response: ServerResponse, content: Uint8Array): void {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (from > 0) response.writeHead(206, { "Content-Range": `bytes ${from}-${content.length - 1}/${content.length}` });
  response.end(content.subarray(from));
}

/** Answers with the first `bytes` of the content, then breaks the connection. */
function cut(response: ServerResponse, content: Uint8Array, bytes: number): true {
  response.writeHead(200, { "Content-Length": content.length });
  response.write(content.subarray(0, bytes), () => setTimeout(() => response.destroy(), 20));
  return true;
}

const weights = new Uint8Array(300_000).map((_, i) => (i * 7919) >> 3);
const holdsWeights = async (path: string): Promise<boolean> => (await readFile(path)).equals(weights);
const snapshotPath = (cacheDir: string): string => join(cacheDir, "models--org--tiny", "snapshots", commit);

let hub: FakeHub;
let folder: string;
let options: ResolveOptions & { cacheDir: string };

beforeEach(async () => {
  hub = await new FakeHub().start();
  hub.add("config.json", '{"model_type":"llama"}').add("tokenizer.json", "{}").add("README.md", "# read me");
  hub
    .add("model.safetensors", weights, true)
    .add("pytorch_model.bin", "pickle", true)
    .add("onnx/model.onnx", "onnx", true);
  folder = await mkdtemp(join(tmpdir(), "pare-hub-"));
  const patience = { tries: 3, pauseMs: 1, stallMs: 5000 };
  options = { cacheDir: join(folder, "hub"), endpoint: hub.endpoint, offline: false, token: "secret", patience };
});

afterEach(async () => {
  await hub.stop();
  await rm(folder, { recursive: true, force: true });
});

const failing = (failure: HubFailure, message: RegExp) => ({
  code: "HUB",
  failure,
  message: expect.stringMatching(message) as string,
});

describe("resolveModel", () => {
  it("downloads a model into the layout that Python's huggingface_hub uses", async () => {
    const path = await resolveModel("org/tiny", options);
    expect(path).toBe(snapshotPath(options.cacheDir));
    expect((await readdir(path)).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(await holdsWeights(join(path, "model.safetensors"))).toBe(true);
    expect(await readlink(join(path, "model.safetensors"))).toBe(join("..", "..", "blobs", sha256(weights)));
    expect(await readlink(join(path, "config.json"))).toBe(
      join("..", "..", "blobs", gitHash(hub.files.get("config.json")!.content)),
    );
    const repository = join(options.cacheDir, "models--org--tiny");
    expect(await readFile(join(repository, "refs", "main"), "utf8")).toBe(commit);
    expect((await readdir(join(repository, "blobs"))).filter((name) => name.endsWith(".incomplete"))).toEqual([]);
  });

  it("downloads nothing twice", async () => {
    await resolveModel("org/tiny", options);
    hub.requests.length = 0;
    await resolveModel("org/tiny", options);
    expect(hub.requests.filter(({ path }) => !path.startsWith("/api/"))).toEqual([]);
  });

  it("downloads the files asked for, in folders too, and says what there is when one is missing", async () => {
    const path = await resolveModel("org/tiny@v1", { ...options, files: ["onnx/model.onnx"] });
    expect(await readFile(join(path, "onnx", "model.onnx"), "utf8")).toBe("onnx");
    expect(await readlink(join(path, "onnx", "model.onnx"))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    await expect(resolveModel("org/tiny", { ...options, files: ["model.gguf"] })).rejects.toMatchObject(
      failing("missing", /org\/tiny@main has no file model\.gguf; it has config\.json, tokenizer\.json, README\.md, /),
    );
  });

  it("takes shards where there is no single file of weights, and refuses to guess where there are none", async () => {
    hub.files.delete("model.safetensors");
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(
      failing("missing", /has no safetensors weights; choose from/),
    );
    hub
      .add("model-00001-of-00002.safetensors", "a", true)
      .add("model-00002-of-00002.safetensors", "b", true)
      .add("consolidated.safetensors", "c", true);
    hub.add("model.safetensors.index.json", "{}");
    const names = (await readdir(await resolveModel("org/tiny", options))).sort();
    expect(names).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
      "tokenizer.json",
    ]);
  });

  it("keeps files of equal content once, and empty ones", async () => {
    hub.add("a.json", "{}").add("b.json", "{}").add("empty.json", "");
    const path = await resolveModel("org/tiny", options);
    expect(await readlink(join(path, "a.json"))).toBe(await readlink(join(path, "b.json")));
    expect(await readFile(join(path, "empty.json"), "utf8")).toBe("");
    expect(hub.requests.filter(({ path: p }) => /\/(a|b|tokenizer)\.json$/.test(p))).toHaveLength(1);
  });

  it("reports progress up to the announced sizes", async () => {
    const seen: number[] = [];
    let last = { totalReceived: 0, totalSize: -1 };
    await resolveModel("org/tiny", {
      ...options,
      onProgress: (progress) => {
        seen.push(progress.totalReceived);
        expect(progress.received).toBeLessThanOrEqual(progress.size);
        last = progress;
      },
    });
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(last).toMatchObject({ totalReceived: weights.length + 22 + 2, totalSize: weights.length + 22 + 2 });
  });

  it("gives its token to the hub and to nobody else", async () => {
    await resolveModel("org/tiny", options);
    const [elsewhere, own] = [true, false].map((content) =>
      hub.requests.filter(({ path }) => path.startsWith("content:") === content),
    );
    expect(own!.every(({ headers }) => headers.authorization === "Bearer secret")).toBe(true);
    expect(elsewhere!.length).toBeGreaterThan(0);
    expect(elsewhere!.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  it("gives local folders back as they are, before it thinks of the hub", async () => {
    await mkdir(join(folder, "org", "tiny"), { recursive: true });
    expect(await resolveModel(join(folder, "org", "tiny"), options)).toBe(join(folder, "org", "tiny"));
    await expect(resolveModel("a\0b", options)).rejects.toMatchObject({ code: "ARGUMENT" });
    await expect(resolveModel("./no/such/folder", options)).rejects.toThrow("there is no folder ./no/such/folder");
    await writeFile(join(folder, "file"), "");
    await expect(resolveModel(join(folder, "file"), options)).rejects.toThrow(/is a file; give the folder/);
    expect(hub.requests).toEqual([]);
  });
});

describe("when things fail", () => {
  it("continues a file that was cut off, from where it was", async () => {
    let served = 0;
    hub.interceptContent = (_, response) => served++ === 0 && cut(response, weights, 100_000);
    const path = await resolveModel("org/tiny", options);
    expect(await holdsWeights(join(path, "model.safetensors"))).toBe(true);
    const ranges = hub.requests
      .filter(({ path: p }) => p === "content:/model.safetensors")
      .map(({ headers }) => headers.range);
    expect(ranges).toEqual([undefined, "bytes=100000-"]);
  });

  it("continues in the next call, and after a process that died", async () => {
    hub.interceptContent = (request, response) =>
      request.headers.range ? refuse(response, 500) : cut(response, weights, 50_000);
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(
      failing("network", /127\.0\.0\.1:\d+ answered 500/),
    );
    const blobs = join(options.cacheDir, "models--org--tiny", "blobs");
    expect((await readdir(blobs)).filter((name) => name.includes("incomplete"))).toEqual([
      `${sha256(weights)}.pare.incomplete`,
    ]);
    hub.interceptContent = () => false;
    hub.requests.length = 0;
    await resolveModel("org/tiny", options);
    const ranges = (): (string | undefined)[] =>
      hub.requests.filter(({ path }) => path === "content:/model.safetensors").map(({ headers }) => headers.range);
    expect(ranges()).toEqual(["bytes=50000-"]);

    await rm(options.cacheDir, { recursive: true });
    await mkdir(blobs, { recursive: true });
    const noProcess = 2 ** 22 + 1;
    await writeFile(
      join(blobs, `${sha256(weights)}.${hostname()}-${noProcess}-0.incomplete`),
      weights.subarray(0, 70_000),
    );
    await writeFile(
      join(blobs, `${sha256(weights)}.${hostname()}-${process.ppid}-0.incomplete`),
      "still being written by another process",
    );
    hub.requests.length = 0;
    expect(await holdsWeights(join(await resolveModel("org/tiny", options), "model.safetensors"))).toBe(true);
    expect(ranges()).toEqual(["bytes=70000-"]);
    expect((await readdir(blobs)).filter((name) => name.includes("incomplete"))).toHaveLength(1);
  });

  it("begins anew where the server cannot continue, or what it had is of another file", async () => {
    const blobs = join(options.cacheDir, "models--org--tiny", "blobs");
    await mkdir(blobs, { recursive: true });
    const partial = join(blobs, `${sha256(weights)}.pare.incomplete`);
    await writeFile(partial, weights.subarray(0, 1000));
    hub.interceptContent = (_, response) => {
      response.end(weights);
      return true;
    };
    const path = await resolveModel("org/tiny", options);
    expect(await holdsWeights(join(path, "model.safetensors"))).toBe(true);

    await rm(options.cacheDir, { recursive: true });
    hub.interceptContent = () => false;
    for (const wrong of [new Uint8Array(1000), new Uint8Array(400_000)]) {
      await mkdir(blobs, { recursive: true });
      await writeFile(partial, wrong);
      expect(await holdsWeights(join(await resolveModel("org/tiny", options), "model.safetensors"))).toBe(true);
      await rm(options.cacheDir, { recursive: true });
    }
  });

  it("keeps nothing whose checksum or size is wrong", async () => {
    for (const bad of [weights.map((byte, i) => (i === 5 ? byte ^ 1 : byte)), new Uint8Array(weights.length + 10)]) {
      hub.interceptContent = (_, response) => {
        response.end(bad);
        return true;
      };
      await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(
        failing(
          "corrupt",
          bad.length === weights.length
            ? /model\.safetensors: its checksum is [0-9a-f]{64} where /
            : /where 300000 were announced/,
        ),
      );
      const blobs = await readdir(join(options.cacheDir, "models--org--tiny", "blobs"));
      expect(blobs.filter((name) => name.startsWith(sha256(weights)))).toEqual([]);
    }
    await expect(resolveModel("org/tiny", { ...options, offline: true })).rejects.toMatchObject(
      failing("offline", /org\/tiny@main is not in the cache/),
    );
  });

  it("checks small files too", async () => {
    hub.intercept = (request, response) => {
      if (!request.url!.endsWith("/config.json")) return false;
      response.end('{"model_type":"evil_"}');
      return true;
    };
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(
      failing("corrupt", /config\.json: its checksum is [0-9a-f]{40}/),
    );
  });

  it("tries again when the server has a bad moment", async () => {
    let failures = 0;
    hub.intercept = (_, response) => failures++ < 2 && refuse(response, 503);
    await resolveModel("org/tiny", options);
    expect(failures).toBeGreaterThan(2);
  });

  it("does not go on for ever with a server that always stops at the same place", async () => {
    hub.interceptContent = (_, response) => cut(response, weights, 60_000);
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(failing("network", /keeps failing/));
    expect(hub.requests.filter(({ path }) => path === "content:/model.safetensors").length).toBeLessThan(6);
  });

  it("asks for a new address when the one it was sent to has expired", async () => {
    let asked = 0;
    hub.interceptContent = (_, response) => asked++ === 0 && refuse(response, 403);
    expect(await holdsWeights(join(await resolveModel("org/tiny", options), "model.safetensors"))).toBe(true);
  });

  it("notices a connection that stalls, and stops when asked to", async () => {
    const patience = { tries: 1, pauseMs: 1, stallMs: 1000 };
    hub.interceptContent = (_, response) => {
      response.writeHead(200, { "Content-Length": weights.length });
      response.write(weights.subarray(0, 10));
      return true;
    };
    await expect(resolveModel("org/tiny", { ...options, patience })).rejects.toMatchObject(
      failing("network", /no byte within 1000 ms/),
    );
    const controller = new AbortController();
    const onProgress = ({ file }: { file: string }): void => {
      if (file === "model.safetensors") controller.abort();
    };
    await expect(resolveModel("org/tiny", { ...options, signal: controller.signal, onProgress })).rejects.toMatchObject(
      failing("aborted", /stopped; it can be continued/),
    );
    await expect(resolveModel("org/tiny", { ...options, signal: AbortSignal.abort() })).rejects.toMatchObject(
      failing("aborted", /stopped/),
    );
  });

  it("tells apart what is missing, private, gated and forbidden", async () => {
    const asking = (model: string, more: ResolveOptions = {}) => resolveModel(model, { ...options, ...more });
    await expect(asking("org/other")).rejects.toMatchObject(failing("missing", /^org\/other@main is not on http/));
    await expect(asking("org/tiny@v9")).rejects.toMatchObject(
      failing("missing", /^org\/tiny@v9: the repository has no such revision$/),
    );
    const answers: [number, string | undefined, string, HubFailure, RegExp][] = [
      [401, "RepoNotFound", "", "missing", /if it is private, set HF_TOKEN/],
      [401, undefined, "", "unauthorized", /asks for a token; set HF_TOKEN/],
      [401, undefined, "expired", "unauthorized", /does not take the token/],
      [403, undefined, "weak", "unauthorized", /the token is not allowed to read it/],
      [403, "GatedRepo", "weak", "gated", /is gated: ask for access/],
      [400, undefined, "", "refused", /answered 400/],
    ];
    for (const [status, code, token, failure, message] of answers) {
      hub.intercept = (_, response) => refuse(response, status, code);
      await expect(asking("org/tiny", { token })).rejects.toMatchObject(failing(failure, message));
    }
  });

  it("refuses hostile listings", async () => {
    const evil = [
      "../evil.json",
      "/etc/evil.json",
      "a/../../evil.json",
      "C:evil.json",
      "a\\..\\evil.json",
      "a//b.json",
    ];
    for (const path of evil) {
      hub.extraPaths = [path];
      await expect(resolveModel("org/tiny", { ...options, files: [path] })).rejects.toThrow(
        /which is no plain path; it is not downloaded/,
      );
    }
    hub.extraPaths = ["config.json"];
    await expect(resolveModel("org/tiny", options)).rejects.toThrow(/lists "config\.json" twice/);
    hub.intercept = (request, response) => {
      if (!request.url!.includes("/tree/")) return false;
      response.end("[{]");
      return true;
    };
    await expect(resolveModel("org/tiny", options)).rejects.toThrow(/the hub's answer cannot be understood/);
  });

  it.skipIf(process.getuid?.() === 0)("says so when the cache cannot be written", async () => {
    await mkdir(options.cacheDir);
    await chmod(options.cacheDir, 0o500);
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject({ code: "FILE" });
  });

  it("says so when a file stands where the cache should be", async () => {
    await writeFile(options.cacheDir, "");
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject({ code: "FILE" });
  });
});

describe("offline", () => {
  it("uses the cache, by name and by commit, without asking anybody", async () => {
    await resolveModel("org/tiny@refs/pr/1", options);
    hub.requests.length = 0;
    const offline = { ...options, offline: true };
    expect(await resolveModel("org/tiny@refs/pr/1", offline)).toBe(snapshotPath(options.cacheDir));
    expect(await resolveModel(`org/tiny@${commit}`, offline)).toBe(snapshotPath(options.cacheDir));
    await expect(resolveModel("org/tiny", offline)).rejects.toMatchObject(
      failing(
        "offline",
        /org\/tiny@main is not in the cache: .*models--org--tiny; .*HF_HUB_OFFLINE is set\. Go online once/,
      ),
    );
    await expect(resolveModel("org/tiny@refs/pr/1", { ...offline, files: ["README.md"] })).rejects.toMatchObject(
      failing("offline", /README\.md is missing in /),
    );
    expect(hub.requests).toEqual([]);
  });

  it("falls back to the cache when nothing answers", async () => {
    await resolveModel("org/tiny", options);
    await hub.stop();
    expect(await resolveModel("org/tiny", options)).toBe(snapshotPath(options.cacheDir));
    await expect(resolveModel("org/new", options)).rejects.toMatchObject(
      failing("offline", /org\/new@main is not in the cache.*cannot be reached/),
    );
    await hub.start();
  });

  it("knows a name only once all of it is there", async () => {
    hub.interceptContent = (_, response) => refuse(response, 500);
    await expect(resolveModel("org/tiny", options)).rejects.toMatchObject(failing("network", /answered 500/));
    await expect(resolveModel("org/tiny", { ...options, offline: true })).rejects.toMatchObject(
      failing("offline", /is not in the cache/),
    );
  });

  it("reads a cache that Python wrote", async () => {
    const repository = join(options.cacheDir, "models--org--tiny");
    await mkdir(join(repository, "blobs"), { recursive: true });
    await mkdir(join(repository, "refs"));
    await mkdir(snapshotPath(options.cacheDir), { recursive: true });
    await writeFile(join(repository, "blobs", "abc"), "{}");
    await writeFile(join(repository, "refs", "main"), commit);
    await symlink("../../blobs/abc", join(snapshotPath(options.cacheDir), "config.json"));
    expect(await resolveModel("org/tiny", { ...options, offline: true })).toBe(snapshotPath(options.cacheDir));
  });
});

it("lets processes download the same model side by side", async () => {
  const program = `
    import { resolveModel } from "./src/formats/hub.node.ts";
    const path = await resolveModel("org/tiny", JSON.parse(process.argv[1]));
    process.stdout.write(path);`;
  const run = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [
        "--import",
        "tsx",
        "--input-type=module",
        "-e",
        program,
        JSON.stringify(options),
      ]);
      let output = "";
      let errors = "";
      child.stdout.on("data", (data: Buffer) => (output += data));
      child.stderr.on("data", (data: Buffer) => (errors += data));
      child.on("close", (code) => (code === 0 ? resolve(output) : reject(new Error(errors))));
    });
  // The first answer is held back until both processes have asked.
  const waiting: (() => void)[] = [];
  hub.interceptContent = (_, response) => {
    waiting.push(() => response.end(weights));
    if (waiting.length === 2) for (const answer of waiting) answer();
    return true;
  };
  const here = resolveModel("org/tiny", options);
  expect(await Promise.all([run(), here])).toEqual([snapshotPath(options.cacheDir), snapshotPath(options.cacheDir)]);
  expect(await holdsWeights(join(snapshotPath(options.cacheDir), "model.safetensors"))).toBe(true);
  expect((await lstat(join(snapshotPath(options.cacheDir), "model.safetensors"))).isSymbolicLink()).toBe(true);
  expect(
    (await readdir(join(options.cacheDir, "models--org--tiny", "blobs"))).filter((name) => name.includes("incomplete")),
  ).toEqual([]);
});

describe("hubSettings", () => {
  const settings = (env: NodeJS.ProcessEnv) =>
    hubSettings({}, { ...env, HF_TOKEN_PATH: env["HF_TOKEN_PATH"] ?? "/nowhere" }, "/home/me");

  it("finds the cache as Python does", async () => {
    expect(await settings({})).toEqual({
      cacheDir: "/home/me/.cache/huggingface/hub",
      endpoint: "https://huggingface.co",
      offline: false,
      token: undefined,
    });
    expect((await settings({ XDG_CACHE_HOME: "/x" })).cacheDir).toBe("/x/huggingface/hub");
    expect((await settings({ XDG_CACHE_HOME: "/x", HF_HOME: "~/hf" })).cacheDir).toBe("/home/me/hf/hub");
    expect((await settings({ HF_HOME: "/hf", HUGGINGFACE_HUB_CACHE: "/old" })).cacheDir).toBe("/old");
    expect((await settings({ HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "/new" })).cacheDir).toBe("/new");
  });

  it("reads token, endpoint and offline mode", async () => {
    await writeFile(join(folder, "token"), "from-file\n");
    expect((await settings({ HF_TOKEN_PATH: join(folder, "token") })).token).toBe("from-file");
    expect((await settings({ HF_TOKEN_PATH: join(folder, "token"), HF_TOKEN: " named " })).token).toBe("named");
    expect((await settings({ HF_ENDPOINT: "http://mirror/" })).endpoint).toBe("http://mirror");
    expect((await settings({ HF_HUB_OFFLINE: "1" })).offline).toBe(true);
    expect((await settings({ HF_HUB_OFFLINE: "0" })).offline).toBe(false);
    await expect(resolveModel("org/tiny", { ...options, token: "a\nb" })).rejects.toThrow(
      /characters that no token has/,
    );
    await expect(resolveModel("org/tiny", { ...options, endpoint: "nonsense" })).rejects.toThrow(/HF_ENDPOINT/);
  });
});

describe("parseHubName", () => {
  it("reads names with and without revisions", () => {
    expect(parseHubName("gpt2")).toEqual({ repository: "gpt2", revision: "main" });
    expect(parseHubName("org/my.model_1-x@refs/pr/7")).toEqual({
      repository: "org/my.model_1-x",
      revision: "refs/pr/7",
    });
    expect(parseHubName("org/name", "v2")).toEqual({ repository: "org/name", revision: "v2" });
  });

  it.each([
    "",
    "a/b/c",
    "org/",
    "/name",
    "org/..",
    "org/a--b",
    "org/a..b",
    ".org/x",
    "org/na me",
    "org/x@",
    "org/x@../y",
    "org/x@a//b",
    "org/x@.git",
    "org/x@a.lock",
  ])("refuses %j", (name) => {
    expect(() => parseHubName(name)).toThrow(
      /neither a folder here nor a model on the hub|is not a branch, tag or commit/,
    );
  });
});
