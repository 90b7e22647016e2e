"""Names of the files in a model's folder, `data/models/<recipe>/`."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TEXT_WEIGHTS = "text.safetensors"  # of a text tower or of layers behind the texts, if the recipe trains some
METRICS = "metrics.jsonl"  # a row per step
