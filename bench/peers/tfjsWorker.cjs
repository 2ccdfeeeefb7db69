// A thread of tfjs's WASM backend under Node. The backend ships the worker's source as text for a browser, where it
// loads the backend's runtime from a blob URL; here that URL is made the runtime's path and `__dirname` is supplied.
const { dirname } = require("node:path");

const runtime = require.resolve("@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-threaded-simd.js");
const { wasmWorkerContents } = require(runtime.replace(/js$/, "worker.js"));
globalThis.__dirname = dirname(runtime);
URL.createObjectURL = () => runtime;
// biome-ignore lint/security/noGlobalEval: the package offers its worker as text only
eval(wasmWorkerContents.replaceAll("\n", "\\n"));
