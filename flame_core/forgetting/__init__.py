"""`flame forget`: samples are never used again, and their bytes are deleted wherever this project can reach them.

`requests.py` reads what is asked for, `finding.py` finds the samples in all revisions of the data (`revisions.py`),
`traces.py` recognises files that hold them, `purge.py` deletes these, `rebuild.py` writes the data without them,
`models.py` marks the models that saw them, and `forget.py` does one after the other, with `stores.py` of
`flame_core/dvc_project/` for DVC's cache and remotes. docs/forgetting.md explains what is reached and what is not.
"""
