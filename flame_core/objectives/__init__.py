"""What a recipe minimises: terms, one per file (`term.Term` describes their interface), and their sum (`objective`).

A new term is a module here with a subclass of `Term`, a class of params in `params/objectives.py`, and a line in
`term_classes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from flame_core.errors import ParamsError

if TYPE_CHECKING:
    from flame_core.objectives.objective import Objective
    from flame_core.objectives.term import Needs, Setup, Term
    from flame_core.params import ObjectiveParams, TrainParams
    from flame_core.vision.tower import ImageTower


@cache
def term_classes() -> dict[str, type[Term]]:
    """All terms by their names in params."""
    from flame_core.objectives.affinity import Affinity
    from flame_core.objectives.attentive_mask import AttentiveMask
    from flame_core.objectives.cosine import Cosine
    from flame_core.objectives.facet_sigmoid import FacetSigmoid
    from flame_core.objectives.feature_matching import FeatureMatching
    from flame_core.objectives.infonce import InfoNCE
    from flame_core.objectives.learned_masks import LearnedMasks
    from flame_core.objectives.lexical import Flops, Lexical, Overuse
    from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
    from flame_core.objectives.prompt_alignment import PromptAlignment
    from flame_core.objectives.prototypes import Prototypes
    from flame_core.objectives.self_distillation import SelfDistillation
    from flame_core.objectives.self_supervision import BYOL, SimCLR
    from flame_core.objectives.text_distillation import TextDistillation

    return {
        "multi_positive_sigmoid": MultiPositiveSigmoid,
        "facet_sigmoid": FacetSigmoid,
        "infonce": InfoNCE,
        "cosine": Cosine,
        "prototypes": Prototypes,
        "attentive_mask": AttentiveMask,
        "simclr": SimCLR,
        "byol": BYOL,
        "lexical": Lexical,
        "flops": Flops,
        "overuse": Overuse,
        "affinity": Affinity,
        "feature": FeatureMatching,
        "learned_masks": LearnedMasks,
        "prompts": PromptAlignment,
        "text_distillation": TextDistillation,
        "self_distillation": SelfDistillation,
    }


def term_class(params: ObjectiveParams) -> type[Term]:
    """The term that these params are of.

    Raises:
        ParamsError: `term_classes` lacks it.
    """
    found = term_classes().get(params.name)
    if found is None:
        raise ParamsError(f"the loss {params.name} has params, but no class in {__name__}.term_classes: add it there")
    return found


def create_objective(params: TrainParams, setup: Setup) -> Objective:
    """The objective of a recipe: its `objective` and its `terms`."""
    from flame_core.objectives.objective import Objective
    from flame_core.objectives.teacher import open_teacher, require_teacher

    teacher, reads = None, recipe_needs(params).taught
    if reads:
        if setup.teacher is None:
            raise ParamsError("the recipe's terms learn from a teacher, and none is given", key="train.teacher")
        teacher = open_teacher(setup.teacher)
        require_teacher(teacher, reads, setup.tower)
        setup = replace(setup, taught=teacher.sizes)
    terms = {each.name: term_class(each)(each, setup) for each in _all_terms(params)}
    return Objective(terms, teacher, reads, setup.micro_batch_size)


def term_needs(params: TrainParams) -> dict[str, Needs]:
    """What each term of a recipe needs of a step, before anything is built."""
    return {each.name: term_class(each).needs(each) for each in _all_terms(params)}


def term_faults(params: TrainParams, tower: ImageTower) -> Iterator[tuple[str, str]]:
    """(term, why it does not suit the recipe or its tower), which may be without weights."""
    for each in _all_terms(params):
        if params.teacher is None and term_class(each).needs(each).taught:
            yield (
                each.name,
                f"the term {each.name} learns from a teacher, and the recipe names none: write `teacher: {{recipe: "
                "<name>}` or `teacher: {path: <folder of a model>}` into it",
            )
        for message in term_class(each).faults(each, params, tower):
            yield each.name, f"the term {each.name}: {message}"


def recipe_needs(params: TrainParams) -> Needs:
    """What all terms of a recipe need together."""
    from flame_core.objectives.term import together

    return together(term_needs(params).values())


def _all_terms(params: TrainParams) -> list[ObjectiveParams]:
    return [params.objective, *params.terms]
