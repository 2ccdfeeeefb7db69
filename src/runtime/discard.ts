/** A port with nobody at the other end: what is moved there is gone. */
let sink: MessagePort | undefined;

/**
 * Frees the memory of array buffers at once instead of with the next garbage collection: onnxruntime-node returns a copy of
 * every output, also of those written into memory that it was given, and a training step's copies would pile up.
 */
export function discard(buffers: readonly ArrayBuffer[]): void {
  if (buffers.length === 0) return;
  if (!sink) {
    const { port1, port2 } = new MessageChannel();
    port2.close();
    sink = port1;
  }
  sink.postMessage(null, [...buffers]);
}
