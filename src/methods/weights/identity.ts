import type { HostTensor } from "../../tensor/index.ts";

/** What tells a run from others: anything that JSON writes, and the calibration windows; as hexadecimal digits. */
export async function runFingerprint(what: unknown, windows: HostTensor): Promise<string> {
  const head = new TextEncoder().encode(JSON.stringify([what, windows.shape]));
  const bytes = new Uint8Array(head.length + windows.bytes);
  bytes.set(head);
  bytes.set(windows.rawBytes(), head.length);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
