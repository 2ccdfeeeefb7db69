import { expect, test } from "vitest";
import { UsageError } from "../../src/cli/errors.ts";
import { parseCommandLine } from "../../src/cli/parse.ts";

const declaration = {
  args: {
    model: { summary: "the model", required: true },
    texts: { summary: "texts to read", many: true },
  },
  options: {
    prompt: { type: "string", value: "text", summary: "the prompt" },
    device: { type: "string", value: "name", choices: ["cpu", "webgpu"], default: "cpu", summary: "the device" },
    maxTokens: { type: "integer", value: "count", min: 1, max: 100, default: 16, short: "n", summary: "tokens" },
    temperature: { type: "number", value: "t", min: 0, summary: "temperature" },
    quiet: { type: "flag", short: "q", summary: "say less" },
  },
} as const;

const parse = (...words: string[]) => parseCommandLine(words, declaration);

test("what is not said has its default", () => {
  expect(parse("m")).toEqual({
    args: { model: "m", texts: [] },
    options: { prompt: undefined, device: "cpu", maxTokens: 16, temperature: undefined, quiet: false },
    json: false,
    help: false,
  });
});

test("options may stand anywhere, short or long, with = or a space", () => {
  const { args, options, json } = parse(
    "-q",
    "m",
    "--max-tokens=5",
    "a",
    "--temperature",
    "0.5",
    "--json",
    "b",
    "-n",
    "7",
  );
  expect(args).toEqual({ model: "m", texts: ["a", "b"] });
  expect(options).toMatchObject({ quiet: true, maxTokens: 7, temperature: 0.5 });
  expect(json).toBe(true);
});

test("text stays the text that was written", () => {
  for (const text of ["", " ", "007", "1.10", "4e5", "true", "- a list", "-1", "a=b"]) {
    expect(parse("m", "--prompt", text).options["prompt"]).toBe(text);
    expect(parse("m", `--prompt=${text}`).options["prompt"]).toBe(text);
  }
  expect(parse("007", "1e3").args).toEqual({ model: "007", texts: ["1e3"] });
  expect(parse("--", "--json", "-x")).toMatchObject({ args: { model: "--json", texts: ["-x"] }, json: false });
});

test("asking for help forgives missing arguments", () => {
  expect(parse("--help").help).toBe(true);
  expect(parse("-h").help).toBe(true);
});

test.each([
  [[], "missing argument <model>: the model"],
  [["m", "--devise", "cpu"], 'unknown option --devise (did you mean "--device"?)'],
  [["m", "--no-quiet"], "unknown option --no-quiet"],
  [["m", "-z"], "unknown option -z"],
  [["m", "--prompt"], "--prompt needs a value: --prompt <text>"],
  [
    ["m", "--prompt", "--json"],
    "--prompt needs a value, but --json follows it (write --prompt=--json if that is the value)",
  ],
  [["m", "--quiet=no"], '--quiet takes no value, but was given "no"'],
  [["m", "--device", "cup"], '--device is one of cpu, webgpu, not "cup" (did you mean "cpu"?)'],
  [["m", "--max-tokens", "many"], '--max-tokens is a whole number >= 1 and <= 100, not "many"'],
  [["m", "--max-tokens", "1.5"], '--max-tokens is a whole number >= 1 and <= 100, not "1.5"'],
  [["m", "--max-tokens", "0"], '--max-tokens is a whole number >= 1 and <= 100, not "0"'],
  [["m", "-n", "101"], '-n is a whole number >= 1 and <= 100, not "101"'],
  [["m", "--temperature", ""], '--temperature is a number >= 0, not ""'],
  [["m", "--temperature", "Infinity"], '--temperature is a number >= 0, not "Infinity"'],
])("%j is refused", (words, message) => {
  expect(() => parse(...words)).toThrow(new UsageError(message));
});

test("arguments that nothing takes are refused", () => {
  expect(() => parseCommandLine(["a", "b"], { args: { one: { summary: "it" } }, options: {} })).toThrow(
    new UsageError('unexpected argument "b"'),
  );
});
