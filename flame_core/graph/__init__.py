"""What `dvc.yaml` holds in this run: stages of optional sections, links of recipes, deps that params add, versions."""
