/** The subjects of MMLU by category, as its authors part them (Hendrycks et al. 2021); what is not listed is "other". */
const subjects = {
  STEM: "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics high_school_statistics machine_learning anatomy",
  humanities:
    "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions",
  "social sciences":
    "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations security_studies sociology us_foreign_policy",
};

const categories = new Map(
  Object.entries(subjects).flatMap(([category, list]) =>
    list.split(" ").map((subject) => [subject, category] as const),
  ),
);

/** The category of an MMLU subject, written with underscores or spaces. */
export function mmluCategory(subject: string): string {
  return categories.get(subject.replaceAll(" ", "_")) ?? "other";
}
