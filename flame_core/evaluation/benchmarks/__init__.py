"""The evaluation benchmarks that ship with FLAME, one YAML file each (`evaluation.definition` says what it holds)."""
