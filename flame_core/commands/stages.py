"""`flame <stage>`: a command for every stage of `dvc.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from flame_core.commands import concepts
from flame_core.commands.recipe_completion import recipe_names
from flame_core.commands.run_stage import run_stage

_PANEL = "Stages"
_OPTIONAL = "; needs a section `{}` in the params."

RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed samples again; dvc.lock is kept true.")]
Recipe = Annotated[str | None, typer.Argument(help="A recipe that params.yaml lists.", autocompletion=recipe_names)]
NamedRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="The same, in the form that dvc.yaml uses, because DVC quotes it.",
        autocompletion=recipe_names,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for stage, (command, text) in _STAGES.items():
        app.command(stage.replace("_", "-"), help=text.format(stage), rich_help_panel=_PANEL)(command(stage))
    concepts.add_to(app, run_stage, _PANEL)


def _plain(stage: str) -> Callable[[], None]:
    def command() -> None:
        run_stage(stage)

    return command


def _retried(stage: str) -> Callable[[bool], None]:
    def command(retry_failed: RetryFailed = False) -> None:
        run_stage(stage, retry_failed=retry_failed)

    return command


def _of_a_recipe(stage: str) -> Callable[[str | None, str | None], None]:
    def command(recipe: Recipe = None, named: NamedRecipe = None) -> None:
        if (recipe is None) == (named is None):
            raise typer.BadParameter(f"name one recipe: flame {stage} RECIPE, or flame {stage} --recipe RECIPE")
        run_stage(stage, recipe=recipe or named)

    return command


_STAGES: dict[str, tuple[Callable[[str], Callable[..., None]], str]] = {
    "download": (_retried, "Fetch image-text pairs from every source."),
    "fetch_llm": (_plain, "Fetch the frozen LLM and convert it to safetensors."),
    "ingest": (_retried, "Check, deduplicate and split the pairs into shards."),
    "caption": (_retried, "Write short and long captions."),
    "embed": (_plain, "Read every caption with the frozen LLM's facet prompts."),
    "embed_texts": (
        _plain,
        "Add the texts of new benchmarks to the embeddings, without embedding the training set again.",
    ),
    "cluster": (_plain, "Cluster the training captions' vectors" + _OPTIONAL),
    "features": (_plain, "Store a frozen tower's vectors of the pictures" + _OPTIONAL),
    "concept_fit": (_plain, "Fit accuracy over the frequency of concepts" + _OPTIONAL),
    "lexical": (_plain, "Find the words of the training captions" + _OPTIONAL),
    "prompts": (_plain, "Learn soft prompts that make the LLM write a caption" + _OPTIONAL),
    "codes": (_plain, "Put patches of the training pictures into codes" + _OPTIONAL),
    "select": (_plain, "Select training samples by their pictures' codes" + _OPTIONAL),
    "noise": (_plain, "Draw the order by which recipes with `noise` swap texts" + _OPTIONAL),
    "semdedup": (_plain, "Select training samples without semantic duplicates" + _OPTIONAL),
    "scores": (_plain, "Score training samples by models, and select by the scores" + _OPTIONAL),
    "domains": (_plain, "Fetch labelled pictures of other domains" + _OPTIONAL),
    "tune": (_plain, "Train and test small heads on frozen features" + _OPTIONAL),
    "adapt_llm": (_plain, "Teach the LLM to embed captions, with LoRA" + _OPTIONAL),
    "caption_lm": (_plain, "Train a captioner of pictures through the frozen LLM" + _OPTIONAL),
    "link": (_of_a_recipe, "Tell DVC by digest what a recipe needs: its teacher, sidecars, selection of keys."),
    "train": (_of_a_recipe, "Train the image tower of a recipe."),
    "evaluate": (_of_a_recipe, "Measure a trained model on the held-out split and write its report."),
    "baselines": (_plain, "Measure other people's models on the same benchmarks."),
    "compare": (_plain, "Put all recipes into one table and one chart."),
}
