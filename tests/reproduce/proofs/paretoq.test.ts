import { proves } from "../proof.ts";

proves("paretoq");
