import { proves } from "../proof.ts";

proves("llama-guard-int4", { seed: 0 });
