"""The evaluation benchmarks that ship with FLAME, one YAML file per benchmark (see `suite.definition`)."""
