const folder = "/sys/devices/system/cpu";

/**
 * Physical cores of this machine that the process may use, where Linux tells; elsewhere undefined, and the count is left
 * to onnxruntime, which on some virtual machines finds a single one.
 */
export function physicalCores(): number | undefined {
  if (typeof process === "undefined" || process.platform !== "linux") return undefined;
  const [fs, os] = [process.getBuiltinModule("node:fs"), process.getBuiltinModule("node:os")];
  try {
    const processors = fs.readdirSync(folder).filter((name) => /^cpu\d+$/.test(name));
    const siblings = processors.map((name) =>
      fs.readFileSync(`${folder}/${name}/topology/thread_siblings_list`, "utf8"),
    );
    return siblings.length === 0 ? undefined : Math.min(new Set(siblings).size, os.availableParallelism());
  } catch {
    return undefined;
  }
}
