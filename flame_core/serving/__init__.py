"""A trained model that others can load and serve: `package` makes its files, `pyfunc_model` is its code."""
