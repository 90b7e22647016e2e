"""The commands of `flame` that are no stage of `dvc.yaml`: one module per topic, whose `add_to` adds it to `cli.py`.

Two modules help commands: `recipe_completion.py`, and `retried_stage.py` for `--retry-failed`.
"""
