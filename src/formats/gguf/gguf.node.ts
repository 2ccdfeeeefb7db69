import { closeOnError } from "../bytes.ts";
import { openFile, writeFileAtomic } from "../files.node.ts";
import type { ggufLimits, Limits } from "../limits.ts";
import { GgufFile } from "./gguf.ts";
import type { Metadata } from "./metadata.ts";
import { type PendingGgufTensor, writeGguf } from "./write.ts";

/** Opens a GGUF file. @throws FileError; FormatError; LimitError */
export async function openGguf(path: string, limits?: Limits<typeof ggufLimits>): Promise<GgufFile> {
  const source = await openFile(path);
  return await closeOnError(source, () => GgufFile.open(source, limits));
}

/** Writes a GGUF file, atomically; `tensors` may come from the very file at `path`. @throws FileError */
export async function saveGguf(path: string, metadata: Metadata, tensors: Iterable<PendingGgufTensor>): Promise<void> {
  await writeFileAtomic(path, (sink) => writeGguf(sink, metadata, tensors));
}
