import { proves } from "../proof.ts";

proves("llm-kick");
