import { proves } from "../proof.ts";

proves("parq");
