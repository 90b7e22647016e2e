"""`flame concepts`: the stage, and commands that work with what it counted."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flame_core.files.whole_files import write_output


class Side(StrEnum):
    """Which count of a concept."""

    text = "text"
    image = "image"
    both = "both"


def add_to(app: typer.Typer, run_stage: Callable[[str], None], panel: str) -> None:
    """Add the commands to the command line; `run_stage` runs a stage by its name."""
    group = typer.Typer(invoke_without_command=True)

    @group.callback()
    def concepts(context: typer.Context) -> None:
        """Count concepts in captions and pictures; needs a section `concepts` in the params."""
        if context.invoked_subcommand is None:
            run_stage("concepts")

    group.command()(rare)
    group.command()(test_set)
    app.add_typer(group, name="concepts", rich_help_panel=panel)


def rare(
    top: Annotated[int, typer.Option(min=1, help="How many concepts.")] = 290,
    by: Annotated[Side, typer.Option(help="The count that decides.")] = Side.text,
    zero: Annotated[bool, typer.Option("--zero", help="Also those that are in no sample.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table in CSV.")] = None,
) -> None:
    """List the rarest concepts, to gather test pictures of them as Let It Wag! did."""
    from flame_core.concepts.concept_out import read_frequencies
    from flame_core.concepts.rare_concepts import rarest, to_csv
    from flame_core.layout import Layout
    from flame_core.reporting import console, table

    found = read_frequencies(Layout.find().concepts)
    concepts = rarest(found, by.value, top, zero)
    if out is not None:
        write_output(out, to_csv(concepts), "--out")
        console.print(f"{len(concepts):,} concepts: {out}", markup=False, highlight=False, soft_wrap=True)
        return
    shown = [(each.name, *("" if n < 0 else f"{n:,}" for n in (each.text, each.image, each.both))) for each in concepts]
    table(f"the {len(concepts):,} rarest concepts", ["concept", "text", "image", "both"], shown)


def test_set(
    folder: Annotated[Path, typer.Argument(help="Gathered pictures, a subfolder per class.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the test set.")],
    least: Annotated[int, typer.Option(min=1, help="Pictures that a class must have left.")] = 450,
    sample: Annotated[int | None, typer.Option(min=1, help="Pictures of each class (default: --least).")] = None,
    distance: Annotated[int, typer.Option(min=0, max=64, help="Bits of the pHash in which equals may differ.")] = 10,
    outliers: Annotated[float, typer.Option(min=0, max=1, help="Share dropped as outliers; needs --recipe.")] = 0.05,
    cosine: Annotated[
        float | None, typer.Option(min=0, max=1, help="Cosine from which pictures are equal too; needs --recipe.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe whose tower sees the pictures.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
) -> None:
    """Make a test set of gathered pictures: no duplicates, no outliers, equally many per class."""
    import shutil

    from flame_core.concepts.gathered_test_set import Rules, choose
    from flame_core.digest import write_json
    from flame_core.errors import InputError
    from flame_core.export.folder import require_new, write_folder
    from flame_core.layout import Layout
    from flame_core.names import expanded
    from flame_core.reporting import facts
    from flame_core.settings import settings

    require_new(expanded(out).absolute())
    encode = None
    if recipe is not None:
        from flame_core.vision.image_encoder import load_encoder

        encode = load_encoder(Layout.find().model(recipe), settings().torch_device()).encode
    elif cosine is not None:
        raise InputError("--cosine compares vectors of pictures: name with --recipe the tower that gives them")
    rules = Rules(least, sample or least, distance, outliers if encode else 0.0, seed, cosine)
    found = choose(folder, rules, encode)
    if not found.kept:
        most = max(found.small.values())
        raise InputError(f"{folder}: no class has {least} pictures left; the largest has {most}: lower --least")

    def write(place: Path) -> None:
        for name, paths in found.kept.items():
            (place / "test" / name).mkdir(parents=True)
            for number, path in enumerate(paths):
                shutil.copyfile(path, place / "test" / name / f"{number:04}{path.suffix.lower()}")
        names = [name.replace("_", " ") for name in found.kept]
        (place / "classnames.txt").write_text("\n".join(names) + "\n", "utf-8")
        kept = {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in found.kept.items()}
        record = {"rules": vars(rules), "kept": kept, "dropped": found.dropped, "too_small": found.small}
        write_json(place / "record.json", record)

    write_folder(out, write)
    reasons: dict[str, int] = {}
    for own in found.dropped.values():
        for reason, count in own.items():
            reasons[reason] = reasons.get(reason, 0) + count
    facts(
        f"test set {out}",
        {
            "classes": len(found.kept),
            "pictures": sum(map(len, found.kept.values())),
            **{f"dropped, {reason}": count for reason, count in sorted(reasons.items())},
            f"classes with fewer than {least}": len(found.small),
            "outliers": "looked for" if encode else "not looked for: name a --recipe",
        },
    )
