"""The papers' benchmarks: their layouts on disk, their tasks, other people's models, and the results.

definition           what a benchmark is, as a YAML file; `benchmarks/` holds those that ship
layouts, content     data on disk, and what they hold once they are read
tasks                what is asked of a model: its texts, its scores, its headline
collection           the configured benchmarks, and the texts that the LLM embeds for them
models               other people's models and this project's, behind one class
encoding             a model's vectors of pictures and texts, kept in the work cache
safe_pictures        pictures of other people, refused or mapped before a model sees them
measurement          all benchmarks on one model
score                what a task finds in one language, and the mean over languages
benchmark_results    what a model scores, as files
held_out_benchmarks  the project's own held-out split among the others
recipe_benchmarks    all of them on the model of a recipe
baselines            all of them on the models of `evaluate.baselines`
"""
