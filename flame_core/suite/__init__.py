"""The papers' benchmarks: their layouts on disk, their tasks, other people's models, and the results.

Its modules:

    definition           a benchmark's definition, a YAML file; `benchmarks/` holds those that ship with FLAME
    layouts, content     data on disk, and their content once read
    tasks                what a model must do: the texts it needs, its scores, its headline
    collection           the configured benchmarks, and the texts that the LLM embeds for them
    models               other people's models and this project's, with one interface
    encoding             a model's vectors of pictures and texts, kept in the work cache
    safe_pictures        pictures of other people, refused or converted before a model sees them
    measurement          all benchmarks on one model
    score                the result of a task in one language, and the mean over languages
    benchmark_results    a model's results, as files
    held_out_benchmarks  the project's own held-out split, as benchmarks
    recipe_benchmarks    all benchmarks on a recipe's model
    baselines            all benchmarks on the models of `evaluate.baselines`
"""
