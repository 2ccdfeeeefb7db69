/**
 * The process that runs one Python program. Plain JavaScript, so that it needs no loader; `python.node.ts` starts it
 * under limits and says over the channel what to do.
 *
 * What a program cannot reach: JavaScript (no module leads there, and a way round finds that nothing makes code of
 * strings), the host's files and processes (Node's permissions), the network (sockets are refused, `fetch` is gone), and
 * the parent's environment (which is not handed on).
 */
import { constants, readFileSync, writeFileSync } from "node:fs";

const [, , library, snapshot, task] = process.argv;
const say = process.send.bind(process);

// The interpreter asks for file flags in a way that Node's permissions forbid.
process.binding = () => ({ fs: constants });
const { loadPyodide } = await import(library);
const quiet = { jsglobals: {}, env: {}, stdin: () => null };

if (task === "snapshot") {
  // Reading the image of an interpreter that has started takes a tenth of the time of starting one.
  const python = await loadPyodide({ ...quiet, _makeSnapshot: true });
  writeFileSync(snapshot, python.makeMemorySnapshot());
  process.exit(0);
}

const python = await loadPyodide({ ...quiet, _loadSnapshot: readFileSync(snapshot) });
for (const name of ["js", "pyodide_js"]) python.unregisterJsModule(name);
python.runPython(`
import sys
for name in list(sys.modules):
    if name.split(".")[0] in ("js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core"):
        del sys.modules[name]
`);
for (const name of ["fetch", "WebSocket", "EventSource", "XMLHttpRequest"]) delete globalThis[name];
for (const name of ["binding", "getBuiltinModule", "dlopen"]) delete process[name];
const { FS, MEMFS, SOCKFS } = python._module;
const refused = (code) => {
  throw new FS.ErrnoError(code);
};
SOCKFS.createSocket = () => refused(python.ERRNO_CODES.EACCES);

process.once("message", ({ code, megabytes, outputBytes }) => {
  const limit = megabytes * 2 ** 20;
  const { grow } = WebAssembly.Memory.prototype;
  WebAssembly.Memory.prototype.grow = function (pages) {
    if (this.buffer.byteLength + pages * 65536 > limit) throw new RangeError("the program's memory is used up");
    return grow.call(this, pages);
  };
  // Files are kept outside of the interpreter's memory, and count as well.
  let stored = 0;
  const { expandFileStorage } = MEMFS;
  MEMFS.expandFileStorage = (node, capacity) => {
    const before = node.contents?.length ?? 0;
    if (stored + capacity - before > limit) refused(python.ERRNO_CODES.ENOSPC);
    expandFileStorage(node, capacity);
    stored += (node.contents?.length ?? 0) - before;
  };

  const output = new Uint8Array(outputBytes);
  let written = 0;
  const write = (bytes) => {
    const kept = bytes.subarray(0, outputBytes - written);
    output.set(kept, written);
    written += kept.length;
    return bytes.length;
  };
  python.setStdout({ write });
  python.setStderr({ write });

  let status = "passed";
  let error = null;
  try {
    python.runPython(code, { globals: python.toPy({ __name__: "__main__" }) });
  } catch (cause) {
    error = String(cause.message).trimEnd().split("\n").at(-1).slice(0, 500);
    status = cause.type === "MemoryError" ? "memory" : cause.type ? "failed" : "crashed";
  }
  say({ status, error, output: new TextDecoder().decode(output.subarray(0, written)) }, () => process.exit(0));
});
say("ready");
