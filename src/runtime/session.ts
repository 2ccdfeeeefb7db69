import type { InferenceSession, Tensor as OrtTensor } from "onnxruntime-common";
import type { ExternalConstant } from "../onnx/index.ts";
import type { LoadedDevice } from "./device.ts";
import { DeviceError, RuntimeFailure } from "./errors.ts";

/** Larger models are not looked up by content: hashing would cost more than it saves. */
const MAX_CACHED_BYTES = 64 * 2 ** 20;

/** What onnxruntime says when it meets half floats on a GPU without WebGPU's feature `shader-f16`. */
const NO_HALF = /requires f16 but the device does not support it/;

interface Entry {
  readonly session: Promise<InferenceSession>;
  users: number;
}

const cache = new Map<string, Entry>();

/** A share in an onnxruntime session; programs of equal structure on one device share one session. */
export interface SessionShare {
  run(
    feeds: Record<string, OrtTensor>,
    fetches?: readonly string[] | Record<string, OrtTensor | null>,
  ): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

/** Sessions that are open in this thread; for tests and diagnosis. */
export function openSessions(): number {
  return cache.size + uncached;
}
let uncached = 0;

export interface SessionOptions {
  /** onnxruntime's own graph rewriting; ours has done most of it. */
  readonly optimize?: "disabled" | "basic" | "extended" | "all";
  /** Where each output is to be left; on the host when absent. */
  readonly locations?: Readonly<Record<string, "cpu" | "gpu-buffer">>;
  /** WebGPU: names of the nodes to run on the CPU. */
  readonly onCpu?: readonly string[];
  /** What the model refers to outside of its bytes. Sessions with such constants are not shared. */
  readonly constants?: readonly ExternalConstant[];
}

/** Opens a session over `model` (file bytes, or a path in Node), or joins an open one. @throws RuntimeFailure */
export async function openSession(
  model: Uint8Array | string,
  loaded: LoadedDevice,
  { optimize = "all", locations, onCpu = [], constants = [] }: SessionOptions = {},
): Promise<SessionShare> {
  const options: InferenceSession.SessionOptions = {
    ...loaded.options,
    graphOptimizationLevel: optimize,
    ...(locations ? { preferredOutputLocation: locations } : {}),
    ...(onCpu.length > 0 ? { executionProviders: [{ name: "webgpu", forceCpuNodeNames: onCpu }] } : {}),
    ...(constants.length > 0 ? { externalData: constants } : {}),
  };
  const create = async (): Promise<InferenceSession> => {
    try {
      return await loaded.ort.InferenceSession.create(model, options);
    } catch (error) {
      throw new RuntimeFailure(`onnxruntime cannot build this program on "${loaded.device}": ${messageOf(error)}`, {
        cause: error,
      });
    }
  };
  const key = constants.length > 0 ? undefined : await keyOf(model, loaded, options);
  let entry = key === undefined ? undefined : cache.get(key);
  if (!entry) {
    entry = { session: create(), users: 0 };
    if (key !== undefined) cache.set(key, entry);
    else uncached++;
  }
  entry.users++;
  const shared = entry;
  const leave = async (): Promise<void> => {
    if (--shared.users > 0) return;
    if (key !== undefined) cache.delete(key);
    else uncached--;
    await (await shared.session).release();
  };
  let session: InferenceSession;
  try {
    session = await shared.session;
  } catch (error) {
    if (--shared.users === 0) {
      if (key !== undefined) cache.delete(key);
      else uncached--;
    }
    throw error;
  }
  return {
    async run(feeds, fetches) {
      try {
        return (await (fetches ? session.run(feeds, fetches as never) : session.run(feeds))) as unknown as Record<
          string,
          OrtTensor
        >;
      } catch (error) {
        if (NO_HALF.test(messageOf(error)))
          throw new DeviceError(
            "this GPU does not compute in half precision (f16); cast to f32 or use another device",
            {
              cause: error,
            },
          );
        throw new RuntimeFailure(`onnxruntime failed while running: ${messageOf(error)}`, { cause: error });
      }
    },
    release: leave,
  };
}

async function keyOf(
  model: Uint8Array | string,
  { device }: LoadedDevice,
  options: InferenceSession.SessionOptions,
): Promise<string | undefined> {
  if (typeof model === "string" || model.byteLength > MAX_CACHED_BYTES || !globalThis.crypto?.subtle) return undefined;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model as Uint8Array<ArrayBuffer>));
  return `${device} ${JSON.stringify(options)} ${Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
