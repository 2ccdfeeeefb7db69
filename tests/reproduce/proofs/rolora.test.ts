import { proves } from "../proof.ts";

proves("rolora");
