import { createRequire } from "node:module";
import os from "node:os";
import { fileURLToPath } from "node:url";
import { setThreadsCount } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

/**
 * Starts tfjs on WASM in Node as fast as it can go: SIMD, `threads` threads (which the backend declines to start in
 * Node by itself), matrix products through its fast kernel, and the one kernel that training misses.
 */
export async function startWasm(threads: number): Promise<void> {
  createRequire(import.meta.url)("@tensorflow/tfjs-core/dist/register_all_gradients.js");
  tf.enableProdMode();
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
  setThreadsCount(threads);
  const { createObjectURL } = URL;
  const { cpus } = os;
  URL.createObjectURL = () => fileURLToPath(new URL("tfjsWorker.cjs", import.meta.url));
  // The backend uses at most half of the processors that it sees.
  os.cpus = () => [...cpus(), ...cpus()];
  await tf.setBackend("wasm");
  URL.createObjectURL = createObjectURL;
  os.cpus = cpus;
  routeMatMul();
  addUnsortedSegmentSum();
}

type KernelCall = Parameters<tf.KernelFunc>[0];

/**
 * The backend has a fast product (XNNPACK) for two matrices as they lie, and a loop some fifteen times slower for
 * transposed or batched ones. Transposing first and taking batches apart keeps all products on the fast one.
 */
function routeMatMul(): void {
  const stock = tf.getKernel("BatchMatMul", "wasm");
  tf.unregisterKernel("BatchMatMul", "wasm");
  tf.registerKernel({
    ...stock,
    kernelFunc(call: KernelCall) {
      const { transposeA, transposeB } = call.attrs as unknown as { transposeA: boolean; transposeB: boolean };
      const multiply = (a: tf.Tensor, b: tf.Tensor) =>
        tf.engine().makeTensorFromTensorInfo(
          stock.kernelFunc({
            inputs: { a, b },
            attrs: { transposeA: false, transposeB: false },
            backend: call.backend,
          }) as tf.TensorInfo,
        );
      return tf.tidy(() => {
        const a = straight(call.inputs["a"] as tf.Tensor, transposeA);
        const b = straight(call.inputs["b"] as tf.Tensor, transposeB);
        const batchA = a.shape.slice(0, -2);
        const batchB = b.shape.slice(0, -2);
        const shape = [...batchA, a.shape.at(-2)!, b.shape.at(-1)!];
        if (tf.util.sizeFromShape(batchB) === 1) {
          const [k, n] = b.shape.slice(-2) as [number, number];
          return tf.reshape(multiply(tf.reshape(a, [-1, k]), tf.reshape(b, [k, n])), shape);
        }
        if (!tf.util.arraysEqual(batchA, batchB)) return multiply(a, b);
        const count = tf.util.sizeFromShape(batchA);
        const as = matrices(a, count);
        const bs = matrices(b, count);
        return tf.reshape(tf.concat(as.map((x, i) => multiply(x, bs[i]!))), shape);
      });
    },
  });
}

function straight(x: tf.Tensor, transposed: boolean): tf.Tensor {
  if (!transposed) return x;
  const axes = x.shape.map((_, i) => i);
  return tf.transpose(x, [...axes.slice(0, -2), axes.at(-1)!, axes.at(-2)!]);
}

/** The matrices of a batch. One copy out and one in: the backend's own slicing copies the whole batch each time. */
function matrices(x: tf.Tensor, count: number): tf.Tensor[] {
  const values = x.dataSync<"float32">();
  const shape = x.shape.slice(-2) as [number, number];
  const size = values.length / count;
  return Array.from({ length: count }, (_, i) => tf.tensor2d(values.subarray(i * size, (i + 1) * size), shape));
}

/** The gradient of a lookup, which the backend lacks, by way of its scatter. */
function addUnsortedSegmentSum(): void {
  tf.registerKernel({
    kernelName: "UnsortedSegmentSum",
    backendName: "wasm",
    kernelFunc({ inputs, attrs }: KernelCall) {
      const x = inputs["x"] as tf.Tensor;
      const ids = tf.reshape(inputs["segmentIds"] as tf.Tensor, [-1, 1]);
      return tf.scatterND(ids, x, [attrs!["numSegments"] as number, ...x.shape.slice(1)]);
    },
  });
}
