"""A trained model as something others can load and serve: `package` makes it, `pyfunc_model` is its code."""
