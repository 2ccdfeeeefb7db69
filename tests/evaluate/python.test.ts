import { existsSync, readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ProgramResult } from "../../src/evaluate/index.ts";
import { PythonRunner } from "../../src/evaluate/node.ts";

let runner: PythonRunner;
beforeAll(async () => {
  runner = await PythonRunner.open();
}, 240_000);
afterAll(() => runner?.dispose());

const timeout = 240_000;

/** The time limit is there for programs that end; those that do not get a short one. */
function run(code: string, { seconds = 60, megabytes = 128 } = {}): Promise<ProgramResult> {
  return runner.run({ code, seconds, megabytes });
}

describe("a program", { timeout }, () => {
  it("passes when it runs to its end", async () => {
    const check =
      "def check(f):\n    assert f([3, 1, 2]) == [1, 2, 3]\n    assert f([]) == []\ncheck(ordered)\nprint('done')";
    const right = "from typing import List\ndef ordered(x: List[int]):\n    return sorted(x)\n";
    const wrong = "def ordered(x):\n    return x\n";
    expect(await run(right + check)).toEqual({ status: "passed", error: null, output: "done\n" });
    expect(await run(wrong + check)).toEqual({ status: "failed", error: "AssertionError", output: "" });
  });

  it.each([
    ["def f(:", "failed", "SyntaxError: invalid syntax"],
    ["import sys; sys.exit(0)", "failed", "SystemExit: 0"],
    ["def f(): return f()\nf()", "failed", "RecursionError: maximum recursion depth exceeded"],
    ["import os; os._exit(0)", "crashed", "Program terminated with exit(0)"],
    ["import ctypes; ctypes.memset(0, 1, 1 << 24)", "crashed", "unreachable"],
  ])("%j does not", async (code, status, error) => {
    expect(await run(code)).toMatchObject({ status, error });
  });

  it("leaves nothing to the next one", async () => {
    expect(await run("import builtins\nbuiltins.len = lambda x: 5\nopen('/tmp/left', 'w').write('x')")).toMatchObject({
      status: "passed",
    });
    expect(await run("import os\nassert len([]) == 0 and not os.path.exists('/tmp/left')")).toMatchObject({
      status: "passed",
    });
  });

  it("is killed when its time is over", async () => {
    for (const code of ["while True: print('x' * 10000)", "10 ** 10 ** 9"])
      expect(await run(code, { seconds: 2 })).toEqual({ status: "timeout", error: "no end after 2 s", output: "" });
  });

  it("gets no more memory than it may have, nor as files", async () => {
    expect(await run("x = []\nwhile True: x.append(bytearray(1 << 20))")).toMatchObject({
      status: "memory",
      error: "MemoryError",
    });
    const file = "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()";
    expect(await run(file)).toMatchObject({ status: "failed", error: "OSError: [Errno 51] No space left on device" });
  });

  it("has its output cut off", async () => {
    const { status, output } = await run("import sys\nfor i in range(100): print('y' * 10000, file=sys.stderr)");
    expect({ status, length: output.length }).toEqual({ status: "passed", length: 65536 });
  });
});

describe("a program cannot reach", { timeout }, () => {
  it.each([
    "import pyodide_js",
    "from pyodide.code import run_js\nrun_js('1')",
    "import sys\nfor name in list(sys.modules):\n    if 'js' in name or 'pyodide' in name: del sys.modules[name]\nimport js",
  ])("JavaScript by %j", async (code) => {
    expect(await run(code)).toMatchObject({
      status: "failed",
      error: expect.stringMatching(/^ModuleNotFoundError: No module named '(js|pyodide_js)'$/),
    });
  });

  it("JavaScript's compiler through what joins the two languages", async () => {
    const code = "import _pyodide_core as core\ncore.create_proxy(print).constructor.constructor('return process')()";
    expect(await run(code)).toMatchObject({
      status: "failed",
      error: expect.stringContaining("EvalError: Code generation from strings disallowed"),
    });
  });

  it("the host's files, processes and environment", async () => {
    const host = new URL(import.meta.url).pathname;
    expect(await run(`open(${JSON.stringify(host)})`)).toMatchObject({
      error: expect.stringMatching(/^FileNotFoundError/),
    });
    expect(await run("import subprocess; subprocess.run(['ls'])")).toMatchObject({
      error: expect.stringMatching(/^OSError/),
    });
    const { output } = await run(
      "import os; print(sorted(os.listdir('/')), 'PATH' in os.environ and os.environ['PATH'])",
    );
    expect(output).toBe("['dev', 'home', 'lib', 'proc', 'tmp'] /\n");
  });

  it("the network", async () => {
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const ways = [
      `import socket; socket.create_connection(('127.0.0.1', ${port})).send(b'x')`,
      `import urllib.request as u; u.urlopen('http://127.0.0.1:${port}/')`,
    ];
    for (const code of ways) expect((await run(code)).status).not.toBe("passed");
    server.close();
    expect(connections).toBe(0);
  });
});

const humanEval = new URL("../../../shared/data/evals/HumanEval.jsonl.gz", import.meta.url);

it.skipIf(!existsSync(humanEval))("HumanEval's own solutions pass (needs shared/data)", { timeout }, async () => {
  const lines = gunzipSync(readFileSync(humanEval)).toString().trimEnd().split("\n");
  const problems = lines.map(
    (line) => JSON.parse(line) as Record<"prompt" | "canonical_solution" | "test" | "entry_point", string>,
  );
  for (const problem of problems.filter((_, i) => i % 100 === 0)) {
    const { prompt, canonical_solution: solution, test, entry_point: entry } = problem;
    expect(await run(`${prompt}${solution}\n${test}\ncheck(${entry})`)).toMatchObject({ status: "passed" });
    expect(await run(`${prompt}    return None\n${test}\ncheck(${entry})`)).toMatchObject({ status: "failed" });
  }
});

it("refuses limits that make no sense, and programs once it is disposed of", async () => {
  await expect(run("", { megabytes: 1 })).rejects.toThrow("a program needs time and at least 64 MB, not 60 s and 1 MB");
  await runner.dispose();
  await expect(run("")).rejects.toThrow("this runner has been disposed of");
});
