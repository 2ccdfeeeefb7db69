import { describe, expect, it } from "vitest";
import { parseIdx } from "../../src/formats/index.ts";

const file = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

describe("parseIdx", () => {
  it("reads bytes under their dimensions, highest byte first", () => {
    const tensor = parseIdx(file(0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255), "digits");
    expect([tensor.dtype, tensor.shape, tensor.toArray()]).toEqual(["u8", [2, 3], [1, 2, 3, 4, 5, 255]]);
  });

  it("refuses other files, other types, and files that are cut short or too long", () => {
    expect(() => parseIdx(file(1, 0, 8, 1), "x")).toThrow("x: it is no IDX file");
    expect(() => parseIdx(file(0, 0, 8), "x")).toThrow("x: it is no IDX file");
    expect(() => parseIdx(file(0, 0, 13, 1, 0, 0, 0, 0), "x")).toThrow(
      "its type is 13; only unsigned bytes (8) are read",
    );
    expect(() => parseIdx(file(0, 0, 8, 2, 0, 0, 0, 1), "x")).toThrow("x: it ends inside of its 2 dimensions");
    expect(() => parseIdx(file(0, 0, 8, 1, 0, 0, 0, 3, 1, 2), "x")).toThrow("x: [3] takes 3 bytes, but 2 follow");
    expect(() => parseIdx(file(0, 0, 8, 1, 0, 0, 0, 1, 1, 2), "x")).toThrow("x: [1] takes 1 bytes, but 2 follow");
    expect(() => parseIdx(file(0, 0, 8, 1, 255, 255, 255, 255), "x")).toThrow("takes 4294967295 bytes, but 0 follow");
  });
});
