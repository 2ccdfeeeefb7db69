import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Metafile } from "esbuild";

export interface Site {
  readonly url: string;
  /** What the page's script and the worker's were made of. */
  readonly metafile: Metafile;
  close(): void;
}

const root = fileURLToPath(new URL("../..", import.meta.url));
const runtime = new URL("./", `file://${createRequire(import.meta.url).resolve("onnxruntime-web/wasm")}`);
const types: Readonly<Record<string, string>> = { ".js": "text/javascript", ".wasm": "application/wasm" };
/** Without these a page gets no shared memory, and WebAssembly no threads. */
const isolation = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const page = `<!doctype html><link rel="icon" href="data:,"><title>pare</title><script type="module" src="page.js"></script>`;

/**
 * Bundles `engine.page.ts` and the engine's worker, as a user of esbuild would, and serves them with onnxruntime's WebAssembly
 * files beside them.
 */
export async function serveSite(): Promise<Site> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: { page: "tests/browser/engine.page.ts", "session.worker": "src/runtime/session.worker.ts" },
    outdir: "site",
    bundle: true,
    splitting: true,
    minify: true,
    format: "esm",
    write: false,
    metafile: true,
    logLevel: "silent",
  });
  const files = new Map(outputFiles.map(({ path, contents }) => [path.split(/[\\/]/).at(-1)!, contents]));
  const find = async (name: string): Promise<Uint8Array | string | undefined> => {
    if (name === "") return page;
    return /^ort-[\w.-]+\.wasm$/.test(name) ? readFile(new URL(name, runtime)) : files.get(name);
  };
  const server = createServer((request, response) => {
    const name = new URL(request.url!, "http://site").pathname.slice(1);
    find(name).then(
      (body) =>
        response
          .writeHead(body === undefined ? 404 : 200, {
            ...isolation,
            "Content-Type": types[extname(name)] ?? "text/html",
          })
          .end(body),
      (error: Error) => response.destroy(error),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, metafile, close: () => server.close() };
}
