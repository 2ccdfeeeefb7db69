/** Makes malformed files out of valid ones, and states what a reader must do with them. */
import { expect } from "vitest";
import { FormatError } from "../../src/formats/errors.ts";
import { PareError } from "../../src/tensor/errors.ts";

/** A seeded stream of numbers in [0, 1) (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Copies of `bytes` with one byte changed at a seeded place. */
export function* flipped(bytes: Uint8Array, count: number, seed: number, end = bytes.length): Generator<Uint8Array> {
  const next = random(seed);
  for (let i = 0; i < count; i++) {
    const copy = bytes.slice();
    const at = Math.floor(next() * end);
    copy[at] = copy[at]! ^ (1 + Math.floor(next() * 255));
    yield copy;
  }
}

/** Copies of `bytes` with a run of bytes removed, doubled or overwritten by another run, at seeded places. */
export function* spliced(bytes: Uint8Array, count: number, seed: number, end = bytes.length): Generator<Uint8Array> {
  const next = random(seed);
  for (let i = 0; i < count; i++) {
    const [from, to] = [Math.floor(next() * end), Math.floor(next() * end)];
    const length = 1 + Math.floor(next() * 16);
    const run = bytes.subarray(from, from + length);
    const parts = [
      [bytes.subarray(0, from), bytes.subarray(from + length)],
      [bytes.subarray(0, to), run, bytes.subarray(to)],
      [bytes.subarray(0, to), run, bytes.subarray(to + run.length)],
    ][i % 3]!;
    yield concat(parts);
  }
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Unsigned little-endian integer of `size` bytes. */
export function le(value: number | bigint, size: 1 | 2 | 4 | 8): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  return bytes.slice(0, size);
}

/** The error is one of those that a parser raises on purpose. */
export async function expectRefused(attempt: Promise<unknown>, text: string | RegExp): Promise<void> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FormatError);
  expect((error as Error).message).toMatch(text);
}

/** Runs `attempt` and returns what it gave, or undefined where it refused by an error of pare's own. */
export async function orRefused<T>(attempt: () => Promise<T>): Promise<T | undefined> {
  try {
    return await attempt();
  } catch (error) {
    expect(error).toBeInstanceOf(PareError);
    return undefined;
  }
}
