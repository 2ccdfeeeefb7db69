/** The script of the page that the tests open: each thing that it can do is a function of `scenarios`. */
import { type CompileOptions, compile } from "../../src/runtime/index.ts";
import { add, HostTensor, matmul, mul, PareError, sum, type Tensor } from "../../src/tensor/index.ts";
import { type Outcome, trainConvNet, trainDecoder } from "../devices/jobs.ts";

interface Busy {
  readonly result: number;
  /** Turns of a timer of the page while the program ran. */
  readonly ticks: number;
}

interface Answer {
  readonly device?: string;
  readonly result?: readonly number[];
  readonly error?: { readonly code: string; readonly message: string };
  readonly announced: readonly string[];
}

const scenarios = {
  isolated: async (): Promise<boolean> => crossOriginIsolated,
  hasWebGpu: async (): Promise<boolean> => (await navigator.gpu?.requestAdapter()) != null,
  trainDecoder: (options: CompileOptions): Promise<Outcome> => trainDecoder(options),
  trainConvNet: (options: CompileOptions): Promise<Outcome> => trainConvNet(options),

  /** A program that takes a while. */
  async work(options: CompileOptions): Promise<Busy> {
    const shape = [512, 512];
    const x = HostTensor.from(
      Float32Array.from({ length: 512 * 512 }, (_, i) => ((i * 7919) % 101) / 101),
      { shape },
    );
    const powers = (a: Tensor): Tensor => {
      let y = a;
      for (let i = 0; i < 40; i++) y = mul(matmul(y, a), 1 / 256);
      return sum(y);
    };
    await using program = await compile(powers, [x], options);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const result = await program(x);
    clearInterval(timer);
    return { result: result.item(), ticks };
  },

  /** What `1 + 1` gives with these options. */
  async ask(options: CompileOptions): Promise<Answer> {
    const announced: string[] = [];
    try {
      const one = HostTensor.from([1]);
      await using program = await compile((x) => add(x, 1), [one], { ...options, announce: (m) => announced.push(m) });
      return { device: program.device, result: (await program(one)).toArray(), announced };
    } catch (error) {
      if (!(error instanceof PareError)) throw error;
      return { error: { code: error.code, message: error.message }, announced };
    }
  },
};

export type Scenarios = typeof scenarios;
Object.assign(globalThis, { scenarios });
