"""`captioner: table`: captions that are there already."""
