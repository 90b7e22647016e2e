"""A trained model in use, by its name: `flame_core.load` gives one to Python, and `flame query` asks it.

`loaded` is the model, `locate` finds it, `given_pictures` reads what a caller hands over as a picture.
"""
