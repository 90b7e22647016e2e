"""`objective` and `terms` of a recipe: losses. Each has a model with only its own values; `name` selects it.

A new loss is a class here, a member of `ObjectiveParams`, and a module in `flame_core/objectives/`.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from flame_core.names import Name
from flame_core.params.section import Fraction, Positive, Section


class TermParams(Section):
    """What all terms have in common; each also has a `name`."""

    weight: float = Field(default=1.0, gt=0, description="of this loss in the sum that is minimised")


class PhasedParams(TermParams):
    """A loss that may count in a part of the training only."""

    during: tuple[Fraction, Fraction] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # a recipe that does not name it is recorded as it always was
        description="[from, to] as shares of the training's steps in which this loss counts, such as [0.5, 1.0]; null: "
        "in all. While no loss reads pictures, the image tower does not run",
    )

    @field_validator("during")
    @classmethod
    def _is_a_span(cls, during: tuple[float, float] | None) -> tuple[float, float] | None:
        if during is not None and during[0] >= during[1]:
            raise ValueError(f"{list(during)} is empty: write [from, to] with from below to")
        return during


class ContrastiveParams(TermParams):
    """What all losses that compare pictures with texts by s <z, t> have in common."""

    logit_scale: float = Field(
        default=10.0, ge=1, le=100, description="initial value of s, which stays in [1, 100]; its logarithm is learned"
    )
    learning_rate_multiplier: float = Field(default=1.0, gt=0, description="of the loss's own scalars")


class TextLossParams(ContrastiveParams, PhasedParams):
    """What the losses between pictures and their texts have in common."""

    views: Literal["first", "all"] = Field(
        default="first",
        exclude_if=lambda value: value == "first",  # a recipe that does not name it is recorded as it always was
        description="which views of a picture are compared with its texts; all: the mean of their losses",
    )


class SigmoidParams(TextLossParams):
    """A sigmoid loss also has a bias."""

    logit_bias: float | Literal["auto"] = Field(default=-10.0, description="initial value; auto is -ln(batch_size - 1)")


class MultiPositiveSigmoidParams(SigmoidParams):
    """FLAME's multi-positive sigmoid loss; SigLIP's with one text per image."""

    name: Literal["multi_positive_sigmoid"] = "multi_positive_sigmoid"


class FacetSigmoidParams(SigmoidParams):
    """The multi-positive sigmoid loss plus a second one per facet; needs `model.facet_blocks`."""

    name: Literal["facet_sigmoid"] = "facet_sigmoid"
    facet_weight: float = Field(default=1.0, gt=0, description="lambda of the second term")


class InfoNCEParams(TextLossParams):
    """CLIP's loss."""

    name: Literal["infonce"] = "infonce"
    logit_scale: float = Field(
        default=14.285714, ge=1, le=100, description="initial value of s, 1 / 0.07; its logarithm is learned"
    )


class CosineParams(TermParams):
    """LIFT's simplified loss: 1 - cosine of each picture with its own texts, without negatives."""

    name: Literal["cosine"] = "cosine"


class PrototypesParams(ContrastiveParams):
    """ProtoCLIP's term: each picture finds the prototype of its caption's cluster; needs labels of `flame cluster`."""

    name: Literal["prototypes"] = "prototypes"
    mode: Literal["pbt", "direct"] = Field(
        default="pbt",
        description="pbt: prototypes are means of pictures by their captions' labels; direct: the captions' centroids",
    )
    labels: Name = Field(default="clusters", description="name of the sidecar that holds the labels")
    hidden: Positive = Field(default=2048, description="width of the head; only pbt has one")
    dim: Positive = Field(default=128, description="dimensions of a prototype; only of pbt")
    target_temperature: float | None = Field(
        default=0.05, gt=0, description="tau of the soft targets, for centroids of length 1; null: hard targets"
    )
    episode_steps: Positive | None = Field(
        default=None, description="steps after which the table of prototypes is renewed; null: an epoch; only of pbt"
    )
    decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="weight of earlier episodes in the next table; 0: only the last counts; only of pbt",
    )
    logit_scale: float = Field(
        default=14.285714, ge=1, le=100, description="initial value of s, 1 / 0.07; its logarithm is learned"
    )


class AttentiveMaskParams(TermParams):
    """A-CLIP's mask: the tower sees only those cells of patches that its moving average attends to. It has no loss."""

    name: Literal["attentive_mask"] = "attentive_mask"
    weight: float = Field(default=1.0, ge=1, le=1, description="there is no loss to weigh: 1")
    mode: Literal["attentive", "inverted", "random"] = Field(
        default="attentive",
        description="cells that the tower sees: the most or the least attended, or random ones, without an average",
    )
    score: Literal["cls", "pool", "similarity"] = Field(
        default="cls",
        description="of a patch; cls: the attention of the CLS token to it, mean of all heads and blocks; without that "
        "token, pool: the attention of model.head attention to it, or similarity: its cosine with the mean patch; "
        "random reads neither this nor resolution and momentum",
    )
    keep: float = Field(
        default=0.5, gt=0, le=1, description="share of the cells that are seen, rounded up to a cell more"
    )
    cell: Positive = Field(default=2, description="side of a cell in patches")
    views: Literal[1, 2] = Field(default=2, description="masked views of a picture")
    resolution: float = Field(
        default=0.5, gt=0, le=1, description="side of the picture that the average sees, as a share of image_size"
    )
    momentum: Fraction = Field(default=0.996, description="of the average in the first step; rises to 1 by a cosine")


class SelfSupervisionParams(TermParams):
    """A head of its own on a feature of the backbone."""

    feature: Literal["cls", "pooled"] = Field(default="cls", description="the CLS token, or the mean patch")
    hidden: Positive = Field(default=4096, description="width of the heads")
    dim: Positive = Field(default=256, description="dimensions of what is compared")


class SimCLRParams(SelfSupervisionParams):
    """SimCLR's loss: the two views of a picture find each other among all views of the batch."""

    name: Literal["simclr"] = "simclr"
    temperature: float = Field(default=0.1, gt=0, description="that cosines are divided by")


class BYOLParams(SelfSupervisionParams):
    """BYOL's loss: each view predicts what the moving average of `attentive_mask` sees."""

    name: Literal["byol"] = "byol"
    momentum: Fraction = Field(default=0.996, description="of the average of the projector; rises to 1 by a cosine")


class LexicalLossParams(TextLossParams):
    """LexVLA's loss: CLIP's on weights of words; needs `model.head: lexical` and the words of `flame lexical`."""

    name: Literal["lexical"] = "lexical"
    words: Name = Field(default="lexical", description="name of the sidecar that holds the captions' words")
    logit_scale: float = Field(
        default=14.285714, ge=1, le=100, description="initial value of s, 1 / 0.07; its logarithm is learned"
    )


class UsageParams(TermParams):
    """A loss of how often words are used."""

    ramp: Fraction = Field(
        default=0.1, description="share of all steps over which the weight rises from 0; from the start, words die"
    )
    texts: float = Field(
        default=0.0,
        ge=0,
        exclude_if=lambda value: value == 0,  # a recipe that does not name it is recorded as it always was
        description="how often the same loss of the texts' words is added; needs `lora`",
    )


class FlopsParams(UsageParams):
    """The sum of the squares of the words' mean weights in the batch."""

    name: Literal["flops"] = "flops"


class OveruseParams(UsageParams):
    """LexVLA's: the same, with each word weighted by how much it is used."""

    name: Literal["overuse"] = "overuse"
    detach: bool = Field(
        default=False, description="no gradient through these weights, which otherwise pushes rare words up"
    )


class AffinityParams(TermParams):
    """TinyCLIP's loss: the affinities of the batch's pictures and texts imitate the teacher's; needs a `teacher`."""

    name: Literal["affinity"] = "affinity"
    scale: float = Field(default=50.0, gt=0, description="s of the student's affinities; it is not learned")
    teacher_scale: float = Field(default=50.0, gt=0, description="of the teacher's")


class FeatureParams(TermParams):
    """Each picture's feature comes near the teacher's; needs a `teacher`."""

    name: Literal["feature"] = "feature"
    feature: Literal["z", "pooled", "cls"] = Field(
        default="z",
        description="z: the vector in the texts' space; pooled: the backbone's mean patch; cls: its CLS token; mapped "
        "to the teacher's by a learned matrix if their sizes differ",
    )


class LearnedMasksParams(TermParams):
    """TinyCLIP's masks over the tower's width, heads and hidden units, by which it is pruned while it is trained."""

    name: Literal["learned_masks"] = "learned_masks"
    weight: float = Field(default=1.0, ge=1, le=1, description="its multipliers are learned: 1")
    keep: float = Field(
        default=0.75, gt=0, lt=1, description="share of the weights of the whole backbone's blocks that stays"
    )
    share: float = Field(
        default=0.25, gt=0, lt=1, description="of the training's steps, in which masks are learned; then it prunes"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="of masks and multipliers; null: 0.02, more if there are fewer than 750 steps"
    )
    temperature: float = Field(default=2 / 3, gt=0, description="beta of the hard concrete masks")
    multiplier: float = Field(default=10.0, ge=0, description="what the two multipliers begin with")


class PromptsTermParams(TermParams):
    """P-Former's: the prompts of a picture come near those of its caption; needs `model.connector` and `prompts`."""

    name: Literal["prompts"] = "prompts"
    relative: bool = Field(
        default=True,
        description="the squared difference over the mean square of the LLM's input embeddings, so that a weight suits "
        "any LLM; false: as in the paper, with a weight of 10 (beside other losses) or 100",
    )
    decay: Fraction = Field(default=0.0, description="share of the steps, the last, over which the weight falls to 0")


class StructureParams(PhasedParams):
    """ProCLIP's alignment of two sets of vectors: each with its own, and the distances among them."""

    structure: float = Field(
        default=1.0,
        ge=0,
        description="weight of the mean over pairs of samples beside the mean over samples; (n - 1) / 2 is ProCLIP's "
        "sums over n samples",
    )


class TextDistillationParams(StructureParams):
    """ProCLIP's first stage: projected texts come near those of a CLIP; needs `teacher.model`, `text_projection`."""

    name: Literal["text_distillation"] = "text_distillation"


class SelfDistillationParams(StructureParams):
    """ProCLIP's regularisation: pictures stay near what the moving average of the image tower sees in them."""

    name: Literal["self_distillation"] = "self_distillation"
    momentum: Fraction = Field(default=0.999, description="of the average, in every step in which the loss counts")


ObjectiveParams = Annotated[
    MultiPositiveSigmoidParams
    | FacetSigmoidParams
    | InfoNCEParams
    | CosineParams
    | PrototypesParams
    | AttentiveMaskParams
    | SimCLRParams
    | BYOLParams
    | LexicalLossParams
    | FlopsParams
    | OveruseParams
    | AffinityParams
    | FeatureParams
    | LearnedMasksParams
    | PromptsTermParams
    | TextDistillationParams
    | SelfDistillationParams,
    Field(discriminator="name"),
]
OBJECTIVES: dict[str, type[TermParams]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(ObjectiveParams)[0])
}
