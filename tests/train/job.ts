import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { at, crossEntropy, optim } from "../../src/nn/index.ts";
import { add, dropout, HostTensor, linear, Rng, relu, type Tensor } from "../../src/tensor/index.ts";
import { type BatchSource, type TrainOptions, type TrainResult, train } from "../../src/train/index.ts";
import { checkpointFolder, openRunLog } from "../../src/train/node.ts";

interface Batch<T = HostTensor> {
  readonly x: T;
  readonly y: T;
}

/** Points on noisy rings, to be told apart by radius. */
export class Rings implements BatchSource<Batch> {
  #rng = new Rng(7);

  next(): Batch {
    const x = HostTensor.zeros("f32", [32, 2]);
    const y = HostTensor.zeros("i64", [32]);
    for (let i = 0; i < 32; i++) {
      const ring = this.#rng.integer(3);
      const [angle, radius] = [this.#rng.uniform(0, 2 * Math.PI), ring + 1 + 0.1 * this.#rng.normal()];
      x.set(2 * i, radius * Math.cos(angle));
      x.set(2 * i + 1, radius * Math.sin(angle));
      y.set(i, ring);
    }
    return { x, y };
  }

  state(): unknown {
    return this.#rng.toJSON();
  }

  restore(state: unknown): void {
    this.#rng = new Rng(state as ReturnType<Rng["toJSON"]>);
  }
}

type Layers<T> = { readonly w: T; readonly b: T }[];

export function rings(): { params: Layers<HostTensor>; data: Rings } {
  const rng = new Rng(1);
  const layer = (out: number, width: number) => ({
    w: rng.normalTensor([out, width], { std: Math.sqrt(2 / width) }),
    b: HostTensor.zeros("f32", [out]),
  });
  return { params: [layer(32, 2), layer(32, 32), layer(3, 32)], data: new Rings() };
}

export function forward(params: Layers<Tensor>, x: Tensor, key: Tensor | null): Tensor {
  return params.reduce((h, { w, b }, i) => {
    const y = at(`layers.${i}`, add(linear(h, w), b));
    if (i === params.length - 1) return y;
    return key ? dropout(relu(y), 0.1, key) : relu(y);
  }, x);
}

export function options(steps: number): TrainOptions<Layers<HostTensor>, Batch> {
  const { params, data } = rings();
  return {
    params,
    data,
    steps,
    threads: 1,
    loss: (p, { x, y }, { key }) => crossEntropy(forward(p, x, key), y),
    optimizer: optim.adamw({ weightDecay: 0.01 }),
    schedule: optim.warmUp(5, optim.cosine(0.01, steps)),
    accumulate: 2,
    seed: 3,
  };
}

/** The run that the resume test kills: checkpoints every 3 steps, and says each step on `steps.txt`. */
export async function job(folder: string, steps: number): Promise<TrainResult<Layers<HostTensor>>> {
  const log = await openRunLog(join(folder, "log.jsonl"), Number.POSITIVE_INFINITY);
  return train({
    ...options(steps),
    checkpoint: { every: 3, store: checkpointFolder(join(folder, "checkpoints")) },
    onLog: (entry) => {
      log.write(entry);
      appendFileSync(join(folder, "steps.txt"), `${entry.step}\n`);
    },
  });
}

if (process.argv[2] === "run") await job(process.argv[3]!, Number(process.argv[4]));
