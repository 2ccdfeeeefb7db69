import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cachedTree, heldOutLoss, type Setting, smallLanguage } from "../../src/reproduce/index.ts";
import { experimentCache, localWorkbench } from "../../src/reproduce/node.ts";
import { HostTensor } from "../../src/tensor/index.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-cache-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const tree = (value: number) => ({ a: [HostTensor.from([value, 2])], b: HostTensor.from(value) });

describe("what experiments cache", () => {
  it("is made once for a key, and again for another or where the file is damaged", async () => {
    const bench = localWorkbench({ cacheFolder: join(folder, "trees") });
    let made = 0;
    const get = (key: unknown) => cachedTree(bench, key, tree(0), async () => tree(++made));
    expect((await get({ steps: 3 })).b.item()).toBe(1);
    expect((await get({ steps: 3 })).b.item()).toBe(1);
    expect((await get({ steps: 4 })).b.item()).toBe(2);
    for (const file of await readdir(join(folder, "trees"))) await writeFile(join(folder, "trees", file), "damaged");
    expect((await get({ steps: 3 })).a[0]!.at(0)).toBe(3);
    expect((await readdir(join(folder, "trees"))).filter((name) => !name.endsWith(".safetensors"))).toEqual([]);
  });

  it("has to be of the structure that is asked for", async () => {
    const bench = localWorkbench({ cacheFolder: folder });
    await cachedTree(bench, "one", tree(0), async () => tree(1));
    await expect(
      cachedTree(bench, "one", { c: HostTensor.from(1) }, async () => ({ c: HostTensor.from(1) })),
    ).rejects.toThrow('what is cached under "one" has no "c" of the shape asked for');
  });

  it("lies where the user's cache does", () => {
    expect(experimentCache({}, "/home/me")).toBe(join("/home/me", ".cache", "pare", "experiments"));
    expect(experimentCache({ XDG_CACHE_HOME: "/c" }, "/home/me")).toBe(join("/c", "pare", "experiments"));
    expect(experimentCache({ PARE_CACHE: "/p", XDG_CACHE_HOME: "/c" }, "/home/me")).toBe("/p");
  });
});

describe("smallLanguage", { timeout: 120_000 }, () => {
  it.each([false, true])("learns from the text that comes with pare, outliers: %s", async (outliers) => {
    const setting: Setting = {
      seed: 1,
      full: false,
      bench: localWorkbench({ cacheFolder: folder }),
      signal: new AbortController().signal,
      log: () => undefined,
    };
    const shape = {
      vocab: 320,
      layers: 1,
      dim: 32,
      heads: 2,
      ffn: 64,
      ...(outliers && { outliers: { channels: 2, size: 6 } }),
    };
    const model = await smallLanguage(setting, { ...shape, steps: 60, length: 32 });
    expect(model.config.tied).toBe(!outliers);
    const options = { windows: 32, length: 32 };
    const loss = await heldOutLoss(setting, model, options);
    expect(loss).toBeLessThan(Math.log(320) - 0.3);
    const again = await smallLanguage(setting, { ...shape, steps: 60, length: 32 });
    expect(await heldOutLoss(setting, again, options)).toBe(loss);
  });
});
