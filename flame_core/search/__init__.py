"""Search in pictures by a text or by a picture, with any trained model.

`galleries` are what is searched: the held-out split, all pictures of the project, or a folder that
`flame embed-images` has read (`folder_index`, `stored_vectors`). `ask` finds the nearest, `nearness` says whether that
means anything, `result_page` shows it.
"""
