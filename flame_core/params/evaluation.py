"""`evaluate`: what is measured on the held-out split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from flame_core.params.section import Positive, Section


class BootstrapParams(Section):
    samples: Positive = 500
    confidence: float = Field(default=0.95, gt=0, lt=1)
    seed: int = 0


class EvaluateGates(Section):
    min_recall_over_chance: float = Field(default=1.0, description="English recall@10 over chance, in both directions")
    language_floors: dict[str, float] = Field(
        default={}, description="the same for other languages: {de: 1.5}; a language that is not measured fails"
    )


class EvaluateParams(Section):
    """Held-out retrieval in several languages and zero-shot classification into the source's categories."""

    max_pictures: Positive | None = Field(
        default=None, description="validation pictures that are measured, chosen by a hash of their key; null: all"
    )
    languages: list[str] | Literal["all"] = Field(default=["en"])
    train_language: str = "en"
    recall_at: list[Positive] = Field(default=[1, 5, 10])
    class_prompts: list[str] = Field(default=["{class}"])
    bootstrap: BootstrapParams = BootstrapParams()
    gates: EvaluateGates = EvaluateGates()

    @field_validator("class_prompts")
    @classmethod
    def _prompts_name_the_class(cls, prompts: list[str]) -> list[str]:
        if not prompts or any("{class}" not in prompt for prompt in prompts):
            raise ValueError("every prompt must contain {class}")
        return prompts
