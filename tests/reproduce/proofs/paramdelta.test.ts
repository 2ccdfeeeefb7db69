import { proves } from "../proof.ts";

proves("paramdelta");
