import { gunzipSync } from "node:zlib";
import { fromOnnx, type OnnxModel } from "../../src/onnx/index.ts";
import { readTensor } from "../../src/onnx/read-tensor.ts";
import { decodeModel } from "../../src/onnx/wire.ts";
import { compile } from "../../src/runtime/index.ts";
import { type HostTensor, isFloat, PareError, type Tensor, type TensorLike } from "../../src/tensor/index.ts";

/** One case of the ONNX project's backend tests: a model and, for each data set, serialized tensors. */
export interface NodeTest {
  readonly name: string;
  readonly model: Uint8Array;
  readonly sets: readonly { readonly inputs: readonly Uint8Array[]; readonly outputs: readonly Uint8Array[] }[];
}

/** The cases in a gzipped tar of folders `<name>/model.onnx`, `<name>/test_data_set_<i>/{input,output}_<k>.pb`. */
export function readNodeTests(tarGz: Uint8Array): NodeTest[] {
  const files = new Map<string, Map<string, Uint8Array>>();
  for (const [path, bytes] of untar(gunzipSync(tarGz))) {
    const match = /([^/]+)\/(model\.onnx|test_data_set_\d+\/(?:input|output)_\d+\.pb)$/.exec(path);
    if (!match) continue;
    const [, name, file] = match as unknown as [string, string, string];
    if (!files.has(name)) files.set(name, new Map());
    files.get(name)!.set(file, bytes);
  }
  return [...files]
    .filter(([, parts]) => parts.has("model.onnx"))
    .map(([name, parts]) => {
      const list = (set: number, kind: string): Uint8Array[] => {
        const found: Uint8Array[] = [];
        for (let i = 0, f: Uint8Array | undefined; (f = parts.get(`test_data_set_${set}/${kind}_${i}.pb`)); i++)
          found.push(f);
        return found;
      };
      const sets = [0, 1, 2].map((set) => ({ inputs: list(set, "input"), outputs: list(set, "output") }));
      return { name, model: parts.get("model.onnx")!, sets: sets.filter((s) => s.outputs.length > 0) };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function* untar(bytes: Uint8Array): Generator<[string, Uint8Array]> {
  const text = (from: number, length: number): string => {
    const end = bytes.indexOf(0, from);
    return new TextDecoder().decode(bytes.subarray(from, end < 0 ? from + length : Math.min(end, from + length)));
  };
  for (let at = 0; at + 512 <= bytes.length && bytes[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8);
    yield [text(at, 100), bytes.subarray(at + 512, at + 512 + size)];
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

/** A serialized tensor, read as the only initializer of an otherwise empty model. */
function tensorOf(pb: Uint8Array): HostTensor {
  const within = (field: number, bytes: Uint8Array): Uint8Array => {
    const head = [(field << 3) | 2];
    let n = bytes.length;
    for (; n > 127; n >>>= 7) head.push((n & 127) | 128);
    return Uint8Array.from([...head, n, ...bytes]);
  };
  const model = decodeModel(within(7, within(5, pb)));
  return readTensor(model.graph!.initializer![0]!, { what: "a test tensor", limit: 2 ** 32 });
}

export type Outcome =
  | { readonly kind: "passed"; readonly constants: boolean }
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

/**
 * Imports the model of a case, runs what we make of it in onnxruntime, and compares with the stored outputs. Inputs that
 * decide shapes are made constants where the graph cannot be traced without knowing them.
 */
export async function runNodeTest({ model, sets }: NodeTest): Promise<Outcome> {
  let constants = false;
  for (const set of sets) {
    let inputs: HostTensor[];
    let expected: HostTensor[];
    let loaded: OnnxModel;
    try {
      loaded = fromOnnx(model);
      inputs = set.inputs.map(tensorOf);
      expected = set.outputs.map(tensorOf);
    } catch (error) {
      if (!(error instanceof PareError)) return { kind: "failed", reason: String((error as Error).stack) };
      return { kind: "refused", reason: error.message };
    }
    const attempts = [
      (): boolean => false,
      (t: HostTensor): boolean => !isFloat(t.dtype) && t.size <= 64,
      (t: HostTensor): boolean => t.size <= 64,
    ];
    let outcome: Outcome | undefined;
    for (const [i, fixed] of attempts.entries()) {
      outcome = await attempt(loaded, inputs, expected, fixed);
      if (outcome.kind !== "refused") {
        constants ||= i > 0;
        break;
      }
    }
    if (outcome!.kind !== "passed") return outcome!;
  }
  return { kind: "passed", constants };
}

async function attempt(
  loaded: OnnxModel,
  inputs: readonly HostTensor[],
  expected: readonly HostTensor[],
  fixed: (t: HostTensor) => boolean,
): Promise<Outcome> {
  const fed = inputs.filter((t) => !fixed(t));
  let results: HostTensor[];
  let traced = false;
  try {
    const program = await compile(
      (...args) => {
        const rest = [...(args as unknown as Tensor[])];
        const given: Record<string, TensorLike> = {};
        loaded.inputs.forEach(({ name }, i) => {
          given[name] = fixed(inputs[i]!) ? inputs[i]! : rest.shift()!;
        });
        const outputs = Object.values(loaded.call(given));
        traced = true;
        return outputs;
      },
      fed,
      { threads: 1 },
    );
    results = (await program(...(fed as never[]))) as unknown as HostTensor[];
    await program.dispose();
  } catch (error) {
    if (!(error instanceof PareError)) return { kind: "failed", reason: String((error as Error).stack) };
    return { kind: traced ? "failed" : "refused", reason: error.message };
  }
  for (const [i, want] of expected.entries()) {
    const difference = compare(results[i]!, want);
    if (difference) return { kind: "failed", reason: `output ${i}: ${difference}` };
  }
  return { kind: "passed", constants: false };
}

/** What is different, or undefined where all elements agree within what the element type and a kernel's order allow. */
export function compare(
  got: HostTensor,
  want: HostTensor,
  tolerance = want.dtype === "f16" || want.dtype === "bf16" ? 1e-2 : 1e-4,
): string | undefined {
  if (got.dtype !== want.dtype) return `${got.dtype} instead of ${want.dtype}`;
  if (got.shape.join() !== want.shape.join()) return `shape [${got.shape}] instead of [${want.shape}]`;
  for (let i = 0; i < want.size; i++) {
    const [a, b] = [got.at(i), want.at(i)];
    const close =
      Object.is(a, b) ||
      a === b ||
      (Number.isNaN(a) && Number.isNaN(b)) ||
      Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b));
    if (!close) return `element ${i} is ${a} instead of ${b}`;
  }
  return undefined;
}

/** The first data set of a case as feeds by name, and whether results are the stored ones. */
export function namedInputs(
  { inputs, outputs }: Pick<OnnxModel, "inputs" | "outputs">,
  { sets }: NodeTest,
): { feeds: Record<string, HostTensor>; matches: (results: Readonly<Record<string, HostTensor>>) => boolean } {
  const [first] = sets;
  return {
    feeds: Object.fromEntries(inputs.map(({ name }, i) => [name, tensorOf(first!.inputs[i]!)])),
    matches: (results) => outputs.every(({ name }, i) => !compare(results[name]!, tensorOf(first!.outputs[i]!))),
  };
}
