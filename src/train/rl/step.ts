import { targetLogProbs } from "../../nn/index.ts";
import { compile, type DeviceOptions, type Program } from "../../runtime/index.ts";
import { add, div, exp, type HostTensor, logSoftmax, mul, neg, spec, sum, type Tensor } from "../../tensor/index.ts";
import { compileStep, type StepLoop, type StepOptions } from "../step.ts";
import { batchSpecs, type PolicyBatch } from "./batch.ts";
import { k3, type Objective } from "./objective.ts";
import type { Policy } from "./policy.ts";
import type { Prompt } from "./rollouts.ts";

export interface PolicyStepOptions<W, P extends Prompt, I>
  extends Omit<StepOptions<W, unknown>, "loss" | "params" | "example"> {
  readonly policy: Policy<W, P, I>;
  readonly objective: Objective;
  readonly temperature: number;
  /** Factor of the divergence from the starting weights; see `TrainPolicyOptions`. */
  readonly kl?: number | undefined;
}

/** What a step takes of each micro-batch. */
export interface StepBatch<T, I> {
  readonly tokens: PolicyBatch<T>;
  readonly inputs: I;
  /** Log-probabilities under the starting weights, `[batch, length]`, where a divergence is asked for. */
  readonly reference?: T;
}

const atTemperature = (logits: Tensor, temperature: number): Tensor =>
  temperature === 1 ? logits : div(logits, temperature);

/** Compiles the update: forward pass over the completions, objective, gradients, and the optimizer's step. */
export function compilePolicyStep<W, P extends Prompt, I>(options: PolicyStepOptions<W, P, I>): Promise<StepLoop> {
  const { policy, objective, temperature, kl } = options;
  const specs = batchSpecs();
  return compileStep<W, StepBatch<unknown, unknown>>({
    ...options,
    params: policy.weights,
    example: {
      tokens: specs as never,
      inputs: policy.inputs?.specs ?? {},
      ...(kl !== undefined && { reference: specs.behaviour }),
    },
    loss: (weights, batch) => {
      const { tokens, inputs, reference } = batch as unknown as StepBatch<Tensor, never>;
      const logits = atTemperature(policy.logits(weights, tokens.ids, inputs), temperature);
      const logProbs = targetLogProbs(logits, tokens.targets);
      const { loss, metrics = {} } = objective({
        logProbs,
        behaviour: tokens.behaviour,
        advantages: tokens.advantages,
      });
      const all = logSoftmax(logits, -1);
      const measured: Record<string, Tensor> = {
        ...metrics,
        entropy: neg(sum(mul(exp(all), all), { axes: -1 })),
      };
      let total = loss;
      if (reference) {
        measured.kl = k3(logProbs, reference);
        if (kl) total = add(total, mul(measured.kl, kl));
      }
      return {
        loss: sum(mul(total, tokens.weights)),
        metrics: Object.fromEntries(
          Object.entries(measured).map(([name, values]) => [name, sum(mul(values, tokens.shares))]),
        ),
      };
    },
  });
}

/** Log-probabilities `[batch, length]` of given tokens under weights that stay as they are. */
export type Scorer = Program<readonly [{ ids: HostTensor; targets: HostTensor }, unknown], Tensor>;

/** Compiles a policy with its starting weights as constants, to score tokens with. */
export function compileScorer<W, P extends Prompt, I>(
  policy: Policy<W, P, I>,
  temperature: number,
  device: DeviceOptions,
): Promise<Scorer> {
  const tokens = spec("i64", ["batch", "length"]);
  return compile(
    ({ ids, targets }: { ids: Tensor; targets: Tensor }, inputs: unknown) =>
      targetLogProbs(atTemperature(policy.logits(policy.weights as never, ids, inputs as never), temperature), targets),
    [{ ids: tokens, targets: tokens }, policy.inputs?.specs ?? {}] as const,
    { ...device, names: ["tokens", "inputs"] },
  ) as unknown as Promise<Scorer>;
}
