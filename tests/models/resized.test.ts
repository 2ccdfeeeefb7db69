import { describe, expect, it } from "vitest";
import { type DecoderConfig, decoderConfig, resizedConfigJson } from "../../src/models/index.ts";
import { family } from "./family.ts";

const { llama, mistral, gpt2, gemma3_text: gemma } = family;

describe("resizedConfigJson", () => {
  it("says what the smaller model is", () => {
    const json = { ...llama, num_hidden_layers: 5, torch_dtype: "float32" };
    const sizes = { layers: 4, dim: 40, ffn: 33 };
    for (const window of [
      [null, null, null, null],
      [0, null, 7, 0],
      [7, 7, 7, 7],
      [0, 7, 0, 7],
    ]) {
      const config: DecoderConfig = { ...decoderConfig(json), ...sizes, window };
      const resized = resizedConfigJson(json, config);
      expect(decoderConfig(resized)).toEqual(config);
      expect(resized["torch_dtype"]).toBe("float32");
    }
  });

  it("is of the same kind of model as before", () => {
    const config = { ...decoderConfig(mistral!), layers: 1, window: [24] };
    expect(decoderConfig(resizedConfigJson(mistral!, config))).toEqual(config);
    const own = { ...decoderConfig(gemma!), layers: 2, window: [24, null] };
    expect(decoderConfig(resizedConfigJson(gemma!, own))).toEqual(own);
    const all = { ...decoderConfig(mistral!), window: [null, null] };
    expect(decoderConfig(resizedConfigJson(mistral!, all))).toEqual(all);
  });

  it("refuses what such a file cannot say", () => {
    expect(() => resizedConfigJson(gemma!, { ...decoderConfig(gemma!), dim: 32 })).toThrow(
      /^the config.json of a gemma3_text cannot say that "embeddingScale" is 8: it would be read as 5.65/,
    );
    expect(() => resizedConfigJson(gpt2!, { ...decoderConfig(gpt2!), layers: 1, window: [null] })).toThrow(
      'the config.json of a gpt2 cannot say that "layers" is 1: it would be read as 2',
    );
  });
});

describe("layer_types with layers without attention", () => {
  const read =
    (layer_types: unknown[], changes: object = {}) =>
    () =>
      decoderConfig({ ...llama, layer_types, ...changes });

  it("are read as windows", () => {
    expect(read(["full_attention", "no_attention"])().window).toEqual([null, 0]);
    expect(read(["sliding_attention", "no_attention"], { sliding_window: 5 })().window).toEqual([5, 0]);
  });

  it("are refused where they make no model", () => {
    expect(read(["no_attention", "no_attention"])).toThrow(
      "config.json: none of the 2 layers has attention; at least one needs it",
    );
    expect(read(["no_attention"])).toThrow('config.json: "layer_types" names 1 layers, but there are 2');
    expect(read(["no_attention", "linear_attention"])).toThrow(
      'config.json: layer 1 is of type "linear_attention"; beside no_attention, full_attention and sliding_attention are supported',
    );
    expect(read(["no_attention", "sliding_attention"])).toThrow(
      'config.json: layer 1 slides, so "sliding_window" must be a whole number from 1',
    );
  });
});
