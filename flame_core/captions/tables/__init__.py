"""`captioner: table` and `captioner: column`: captions that are there already."""
