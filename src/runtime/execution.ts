import type { Tensor as OrtTensor } from "onnxruntime-common";
import {
  type ExternalConstant,
  type Graph,
  makeGraph,
  nodesOf,
  type ToOnnxOptions,
  toOnnx,
  toOnnxInMemory,
} from "../onnx/index.ts";
import { constantOf, type HostTensor, input } from "../tensor/index.ts";
import { type Device, type DeviceOptions, type LoadedDevice, loadDevice } from "./device.ts";
import { discard } from "./discard.ts";
import { dtypeOfOrt, fromOrt, toOrt } from "./feeds.ts";
import { openSession, type SessionShare } from "./session.ts";
import { needsCpu } from "./webgpu.ts";

/** A tensor that stays with the session: an input that the next run gets from an output of this one. */
export interface Slot {
  readonly input: string;
  /** Null where no run changes it. */
  readonly output: string | null;
  /** Whether the output may be written over the input's memory; see `mayOverwrite`. */
  readonly inPlace: boolean;
}

export interface ExecutionPlan {
  /** Bytes of the ONNX file. */
  readonly model: Uint8Array;
  /** Constants that are not in the file. */
  readonly constants: readonly ExternalConstant[];
  readonly outputs: readonly string[];
  readonly slots: readonly Slot[];
  /** Names of the nodes that a GPU must leave to the CPU. */
  readonly onCpu: readonly string[];
}

/** From here on a model's constants are handed over as they lie, rather than copied into its file. */
const LARGE_BYTES = 64 * 2 ** 20;

/** The plan to run `graph`, which is in its final form. */
export function planOf(graph: Graph, slots: readonly Slot[]): ExecutionPlan {
  const onCpu: string[] = [];
  const options: ToOnnxOptions = {
    lowered: true,
    onNode: (node, name) => {
      if (needsCpu(node)) onCpu.push(name);
    },
  };
  const { model, constants } =
    constantBytes(graph) < LARGE_BYTES
      ? { model: toOnnx(graph, options), constants: [] }
      : toOnnxInMemory(graph, options);
  return { model, constants, outputs: graph.outputs.map((p) => p.name), slots, onCpu };
}

function constantBytes(graph: Graph): number {
  const nodes = nodesOf(graph.outputs.map((p) => p.tensor));
  return nodes.reduce((sum, node) => sum + (constantOf(node.outputs[0])?.bytes ?? 0), 0);
}

/** A session with its state, wherever it lives: in this thread or in a worker. */
export interface Execution {
  readonly device: Device;
  /** Runs once; returns the outputs that are not state, by name. */
  run(feeds: Readonly<Record<string, HostTensor>>): Promise<Record<string, HostTensor>>;
  /** Copies of the state, or of those parts of it that `names` has, by the slots' input names. */
  read(names?: readonly string[]): Promise<Record<string, HostTensor>>;
  /** Replaces the state, by the slots' input names; the values are copied. */
  write(values: Readonly<Record<string, HostTensor>>): Promise<void>;
  close(): Promise<void>;
}

/** Opens a session in this thread. */
export async function openHere(plan: ExecutionPlan, options: DeviceOptions): Promise<Execution> {
  const loaded = await loadDevice(options);
  const locations = Object.fromEntries(
    plan.outputs.map((name) => [name, plan.slots.some((s) => s.output === name) ? "gpu-buffer" : "cpu"] as const),
  );
  const session = await openSession(plan.model, loaded, {
    constants: plan.constants,
    ...(loaded.device === "webgpu" && { locations, onCpu: plan.onCpu }),
  });
  return new LocalExecution(plan, loaded, session);
}

class LocalExecution implements Execution {
  readonly device: Device;
  readonly #plan: ExecutionPlan;
  readonly #loaded: LoadedDevice;
  readonly #session: SessionShare;
  /** What the next run reads, by input name. */
  readonly #current = new Map<string, OrtTensor>();
  /** Where the next run writes, by input name: the current memory itself where that is safe. Native CPU only. */
  readonly #target = new Map<string, OrtTensor>();

  constructor(plan: ExecutionPlan, loaded: LoadedDevice, session: SessionShare) {
    this.device = loaded.device;
    this.#plan = plan;
    this.#loaded = loaded;
    this.#session = session;
  }

  async run(values: Readonly<Record<string, HostTensor>>): Promise<Record<string, HostTensor>> {
    const feeds: Record<string, OrtTensor> = {};
    for (const [name, value] of Object.entries(values)) feeds[name] = toOrt(this.#loaded.ort, value);
    for (const [name, value] of this.#current) feeds[name] = value;
    const results = await this.#session.run(feeds, this.#fetches());
    const rest: Record<string, HostTensor> = {};
    const state = new Set(this.#plan.slots.map((s) => s.output));
    for (const name of this.#plan.outputs) if (!state.has(name)) rest[name] = fromOrt(results[name]!);
    const changed = this.#plan.slots.filter((slot) => slot.output !== null);
    for (const { input, output } of changed) this.#turn(input, results[output!]!);
    // The state is in the memory that the run was given; what it returned beside are copies.
    if (this.#target.size > 0)
      discard(changed.map(({ output }) => (results[output!]!.data as Float32Array).buffer as ArrayBuffer));
    return rest;
  }

  /** Memory to write into, where the device can. */
  #fetches(): Record<string, OrtTensor | null> | undefined {
    if (this.#target.size === 0) return undefined;
    const fetches: Record<string, OrtTensor | null> = Object.fromEntries(
      this.#plan.outputs.map((name) => [name, null]),
    );
    for (const { input, output } of this.#plan.slots) if (output !== null) fetches[output] = this.#target.get(input)!;
    return fetches;
  }

  /** Makes what a run wrote the state of the next. */
  #turn(input: string, result: OrtTensor): void {
    const [before, target] = [this.#current.get(input)!, this.#target.get(input)];
    if (!target) {
      if (before.location !== "cpu") before.dispose();
      this.#current.set(input, result);
      return;
    }
    this.#current.set(input, target);
    this.#target.set(input, before);
  }

  async read(names?: readonly string[]): Promise<Record<string, HostTensor>> {
    const wanted = new Set(names ?? this.#current.keys());
    const parts = [...this.#current].filter(([input]) => wanted.has(input));
    const away = parts.filter(([, tensor]) => tensor.location !== "cpu");
    const fetched = away.length === 0 ? {} : await this.#download(Object.fromEntries(away));
    return Object.fromEntries(parts.map(([input, tensor]) => [input, fetched[input] ?? fromOrt(tensor).clone()]));
  }

  /**
   * Brings tensors from device memory to the host by running them through a session that does nothing: reading one
   * directly ends the process in onnxruntime-node 1.30.
   */
  async #download(tensors: Record<string, OrtTensor>): Promise<Record<string, HostTensor>> {
    const ports = Object.entries(tensors).map(([name, t]) => ({
      name,
      tensor: input(name, { dtype: dtypeOfOrt(t), shape: t.dims }),
    }));
    const copies = ports.map(({ name, tensor }) => ({ name: `${name} copy`, tensor }));
    const session = await openSession(toOnnx(makeGraph(ports, copies)), this.#loaded);
    try {
      const results = await session.run(tensors);
      return Object.fromEntries(ports.map(({ name }) => [name, fromOrt(results[`${name} copy`]!)]));
    } finally {
      await session.release();
    }
  }

  async write(values: Readonly<Record<string, HostTensor>>): Promise<void> {
    for (const { input, output, inPlace } of this.#plan.slots) {
      const before = this.#current.get(input);
      if (before && before.location !== "cpu") before.dispose();
      const current = toOrt(this.#loaded.ort, values[input]!.clone());
      this.#current.set(input, current);
      if (this.device === "cpu" && output !== null)
        this.#target.set(input, inPlace ? current : toOrt(this.#loaded.ort, values[input]!.clone()));
    }
  }

  async close(): Promise<void> {
    for (const tensor of this.#current.values()) if (tensor.location !== "cpu") tensor.dispose();
    this.#current.clear();
    this.#target.clear();
    await this.#session.release();
  }
}
