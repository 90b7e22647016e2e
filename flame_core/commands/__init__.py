"""The commands of `flame` that are no stage of `dvc.yaml`: one module per topic, whose `add_to` adds it to `cli.py`.

Two modules help commands: `recipe_completion.py`, and `recorded_stage.py` for stages that run outside of DVC.
"""
