"""(facts, config, workload) → numbers: the same path for what was run and for what might be."""
