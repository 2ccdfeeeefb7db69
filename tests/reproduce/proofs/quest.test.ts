import { proves } from "../proof.ts";

proves("quest");
