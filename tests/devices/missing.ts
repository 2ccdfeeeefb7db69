/** What `missing.test.ts` runs in a process that cannot find a GPU: prints what asking for one gives. */
import { compile } from "../../src/runtime/index.ts";
import { add, HostTensor, spec } from "../../src/tensor/index.ts";

const refused = await compile((x) => add(x, 1), [spec("f32", [1])], { device: "webgpu" }).then(
  () => null,
  ({ code, message }) => ({ code, message }),
);
const announced: string[] = [];
await using program = await compile((x) => add(x, 1), [spec("f32", [1])], {
  device: "webgpu",
  fallback: "cpu",
  announce: (message) => announced.push(message),
});
const result = (await program(HostTensor.from([1]))).toArray();
console.log(JSON.stringify({ refused, announced, device: program.device, result }));
