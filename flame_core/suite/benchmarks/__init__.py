"""The evaluation benchmarks that ship with FLAME, one YAML file each (`suite.definition` says what it holds)."""
