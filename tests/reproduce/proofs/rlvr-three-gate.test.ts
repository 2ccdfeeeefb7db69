import { proves } from "../proof.ts";

proves("rlvr-three-gate", { except: ["drift per size of RL, no more than fine-tuning's"] });
