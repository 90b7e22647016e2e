"""Params: everything that changes a result, one model per section, read from `params.yaml` and `recipes/<name>.yaml`.

DVC tracks the same files. An unknown key or a wrong value is an error that names the file, the key and what is
accepted. What must not change a result (device, workers, folders) is a setting instead (`settings.py`).

`train:` in `params.yaml` overrides the values of every recipe, so one recipe file serves a laptop and a cluster:

    flame params check
"""

from flame_core.params.adapt_llm import AdaptLLMParams
from flame_core.params.augmentation import AugmentationParams, PhotometricParams
from flame_core.params.caption_lm import CaptionLMParams, CaptionWriting
from flame_core.params.captions import (
    Captioner,
    CaptionGates,
    CaptionParams,
    ColumnCaptioner,
    FoundCaptioner,
    IngestParams,
    MetadataCaptioner,
    RewriteCaptioner,
    TableCaptioner,
    TrainedCaptioner,
    VLMCaptioner,
)
from flame_core.params.changed_values import changed_values
from flame_core.params.chat_server import ServerCaptioner, TokenPrice
from flame_core.params.clustering import ClusterParams, KMeansParams
from flame_core.params.codes import (
    CodesParams,
    CodesTower,
    FilterParams,
    SelectionMode,
    SelectionParams,
    SelectParams,
    VqForm,
    VqParams,
)
from flame_core.params.concepts import ConceptFitParams, ConceptParams
from flame_core.params.evaluation import EvaluateParams, LooksDisjointParams, SpectrumParams
from flame_core.params.features import FeaturesParams
from flame_core.params.filters import BlurParams, LanguageFilter, LicenceFilter, PairFilterParams, ScoreFilter
from flame_core.params.hub import HubSource
from flame_core.params.initial_weights import InitParams, LastBlocks, TextProjectionParams
from flame_core.params.lexical import LexicalParams
from flame_core.params.model_links import (
    InheritParams,
    ModelLink,
    TeacherParams,
    recipe_of,
    recipe_sources,
    teacher_recipe,
)
from flame_core.params.noise import NoiseGates, NoiseParams
from flame_core.params.objectives import (
    AffinityParams,
    AttentiveMaskParams,
    BYOLParams,
    ContrastiveParams,
    CosineParams,
    FacetSigmoidParams,
    FeatureParams,
    FlopsParams,
    InfoNCEParams,
    LearnedMasksParams,
    LexicalLossParams,
    MultiPositiveSigmoidParams,
    ObjectiveParams,
    OveruseParams,
    PromptsTermParams,
    PrototypesParams,
    SelfDistillationParams,
    SelfSupervisionParams,
    SigmoidParams,
    SimCLRParams,
    TermParams,
    TextDistillationParams,
    TextLossParams,
)
from flame_core.params.promotion import PromoteParams
from flame_core.params.prompts import PromptsParams
from flame_core.params.scores import ScoresParams
from flame_core.params.section import CaptionKind, Precision, Reading
from flame_core.params.semdedup import SemDedupParams
from flame_core.params.sources import DebianSource, FolderSource, Source, WebdatasetSource
from flame_core.params.text import LLMParams, SentenceParams, TextParams
from flame_core.params.towers import ConnectorParams, LoraParams, ModelParams, SizesParams, TextTowerParams
from flame_core.params.training import TrainParams
from flame_core.params.tuning import NMTUNE_TERMS, DomainParams, HeadPreset, TuneParams, ViewsParams
from flame_core.params.urls import OptOutParams, UrlsSource, UrlTimeouts
from flame_core.params.validation import merge, read_yaml
from flame_core.params.whole import Params, load_params, parse_params

__all__ = [
    "NMTUNE_TERMS",
    "AdaptLLMParams",
    "AffinityParams",
    "AttentiveMaskParams",
    "AugmentationParams",
    "BYOLParams",
    "BlurParams",
    "CaptionGates",
    "CaptionKind",
    "CaptionLMParams",
    "CaptionParams",
    "CaptionWriting",
    "Captioner",
    "ClusterParams",
    "CodesParams",
    "CodesTower",
    "ColumnCaptioner",
    "ConceptFitParams",
    "ConceptParams",
    "ConnectorParams",
    "ContrastiveParams",
    "CosineParams",
    "DebianSource",
    "DomainParams",
    "EvaluateParams",
    "FacetSigmoidParams",
    "FeatureParams",
    "FeaturesParams",
    "FilterParams",
    "FlopsParams",
    "FolderSource",
    "FoundCaptioner",
    "HeadPreset",
    "HubSource",
    "InfoNCEParams",
    "IngestParams",
    "InheritParams",
    "InitParams",
    "KMeansParams",
    "LLMParams",
    "LanguageFilter",
    "LastBlocks",
    "LearnedMasksParams",
    "LexicalLossParams",
    "LexicalParams",
    "LicenceFilter",
    "LooksDisjointParams",
    "LoraParams",
    "MetadataCaptioner",
    "ModelLink",
    "ModelParams",
    "MultiPositiveSigmoidParams",
    "NoiseGates",
    "NoiseParams",
    "ObjectiveParams",
    "OptOutParams",
    "OveruseParams",
    "PairFilterParams",
    "Params",
    "PhotometricParams",
    "Precision",
    "PromoteParams",
    "PromptsParams",
    "PromptsTermParams",
    "PrototypesParams",
    "Reading",
    "RewriteCaptioner",
    "ScoreFilter",
    "ScoresParams",
    "SelectParams",
    "SelectionMode",
    "SelectionParams",
    "SelfDistillationParams",
    "SelfSupervisionParams",
    "SemDedupParams",
    "SentenceParams",
    "ServerCaptioner",
    "SigmoidParams",
    "SimCLRParams",
    "SizesParams",
    "Source",
    "SpectrumParams",
    "TableCaptioner",
    "TeacherParams",
    "TermParams",
    "TextDistillationParams",
    "TextLossParams",
    "TextParams",
    "TextProjectionParams",
    "TextTowerParams",
    "TokenPrice",
    "TrainParams",
    "TrainedCaptioner",
    "TuneParams",
    "UrlTimeouts",
    "UrlsSource",
    "VLMCaptioner",
    "ViewsParams",
    "VqForm",
    "VqParams",
    "WebdatasetSource",
    "changed_values",
    "load_params",
    "merge",
    "parse_params",
    "read_yaml",
    "recipe_of",
    "recipe_sources",
    "teacher_recipe",
]
