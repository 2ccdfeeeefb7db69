import type { Env, InferenceSession, TensorConstructor } from "onnxruntime-common";
import { makeGraph, toOnnx } from "../onnx/index.ts";
import { ArgumentError, add, input } from "../tensor/index.ts";
import { physicalCores } from "./cores.ts";
import { DeviceError } from "./errors.ts";

/** Where a program runs: native code (`cpu`, Node only), a GPU through WebGPU, or WebAssembly. */
export type Device = "cpu" | "webgpu" | "wasm";

export interface DeviceOptions {
  /** Default: `cpu` in Node, `wasm` in a browser. */
  readonly device?: Device;
  /** Another device to take, with an announcement, when the first cannot be used. */
  readonly fallback?: Device;
  /**
   * Threads for one operation; default: one per physical core. WebAssembly has one pool of them
   * for all programs of a page or a worker, made with the first; a page must be cross-origin isolated to have more
   * than one.
   */
  readonly threads?: number;
  /** Let idle threads spin instead of sleep: faster alone on the machine, slower beside other work. Default false. */
  readonly spin?: boolean;
  /** Receives announcements such as a fallback; default `console.warn`. */
  readonly announce?: (message: string) => void;
}

/** The part of onnxruntime's interface that all its packages share. */
export interface Ort {
  readonly InferenceSession: {
    create(model: Uint8Array | string, options: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  readonly Tensor: TensorConstructor;
  readonly env: Env;
}

export interface LoadedDevice {
  readonly ort: Ort;
  readonly device: Device;
  readonly options: InferenceSession.SessionOptions;
}

export const inNode: boolean = typeof process !== "undefined" && typeof process.versions?.node === "string";

export function defaultDevice(): Device {
  return inNode ? "cpu" : "wasm";
}

// Held in variables so that bundlers for browsers do not follow them.
const nodePackages: Readonly<Record<Device, string>> = {
  cpu: "onnxruntime-node",
  webgpu: "onnxruntime-node",
  wasm: "onnxruntime-web",
};

async function loadOrt(device: Device): Promise<Ort> {
  if (inNode) return (await import(/* @vite-ignore */ /* webpackIgnore: true */ nodePackages[device])) as Ort;
  if (device === "cpu")
    throw new DeviceError('the device "cpu" is native code and needs Node; in a browser use "wasm" or "webgpu"');
  if (device === "webgpu" && !("gpu" in navigator))
    throw new DeviceError('this browser offers no WebGPU; use the device "wasm"');
  const web = device === "webgpu" ? import("onnxruntime-web/webgpu") : import("onnxruntime-web/wasm");
  return (await web) as unknown as Ort;
}

/**
 * The onnxruntime package behind a device, with the session options for it.
 * @throws DeviceError when the device cannot be used here and no fallback is named.
 */
export async function loadDevice(options: DeviceOptions = {}): Promise<LoadedDevice> {
  const device = options.device ?? defaultDevice();
  if (!["cpu", "webgpu", "wasm"].includes(device))
    throw new ArgumentError(`there is no device "${device as string}"; choose cpu, webgpu or wasm`);
  const { threads } = options;
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1))
    throw new ArgumentError(`threads must be a whole number from 1, not ${threads}`);
  try {
    const ort = await loadOrt(device);
    if (device === "wasm" && threads !== undefined) ort.env.wasm.numThreads ??= threads;
    if (device === "webgpu") await probeWebGpu(ort);
    return { ort, device, options: sessionOptions(device, options) };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const { fallback } = options;
    if (fallback !== undefined && fallback !== device) {
      (options.announce ?? console.warn)(
        `pare: the device "${device}" cannot be used (${reason}); running on "${fallback}" instead`,
      );
      const { fallback: _used, ...rest } = options;
      return loadDevice({ ...rest, device: fallback });
    }
    if (error instanceof DeviceError) throw error;
    throw new DeviceError(`the device "${device}" cannot be used here: ${reason}`, { cause: error });
  }
}

function sessionOptions(device: Device, { threads, spin = false }: DeviceOptions): InferenceSession.SessionOptions {
  const wanted = threads ?? (device === "cpu" ? cores() : undefined);
  return {
    executionProviders: [device === "cpu" ? "cpu" : device],
    logSeverityLevel: 3,
    // A planned block comes on top of the arena that the first run has filled, and saves no measurable time.
    enableMemPattern: false,
    ...(wanted === undefined ? {} : { intraOpNumThreads: wanted }),
    extra: {
      session: { intra_op: { allow_spinning: spin ? "1" : "0" }, inter_op: { allow_spinning: spin ? "1" : "0" } },
    },
  };
}

let counted: { readonly cores: number | undefined } | undefined;

function cores(): number | undefined {
  counted ??= { cores: physicalCores() };
  return counted.cores;
}

let webGpuWorks: Promise<void> | undefined;

/** A session over one addition tells whether an adapter can be had at all. */
function probeWebGpu(ort: Ort): Promise<void> {
  webGpuWorks ??= (async () => {
    const x = input("x", { dtype: "f32", shape: [1] });
    const model = toOnnx(makeGraph([{ name: "x", tensor: x }], [{ name: "y", tensor: add(x, x) }]));
    const session = await ort.InferenceSession.create(model, { executionProviders: ["webgpu"], logSeverityLevel: 4 });
    await session.run({ x: new ort.Tensor("float32", new Float32Array([1]), [1]) });
    await session.release();
  })();
  return webGpuWorks;
}
