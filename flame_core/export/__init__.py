"""A trained model in the formats of other libraries: `flame export MODEL --format ... --out FOLDER`.

`formats` has the four formats, one file per format beside it; `subject` is what is exported, `zero_shot` the class
texts as weights, `folder` writes the files, `readme` the card of the folder. `modeling_flame` is copied into folders
for `transformers` and imports nothing of this project.
"""
