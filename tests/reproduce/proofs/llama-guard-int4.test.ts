import { proves } from "../proof.ts";

// What takes a teacher and a student that have learned to their end is left to the full proof, as is F1 to a hundredth:
// some 460 verdicts tell it to two.
proves("llama-guard-int4", {
  except: [
    "F1, and the pruned model's before it learned",
    "F1 trained for 4 bits, and rounded at once",
    "KL to the teacher trained for 4 bits, and rounded at once",
    "F1 with distillation, and with labels alone",
  ],
});
