"""Settings: everything that must not change a result (device, workers, folders, addresses, log level).

Read from `FLAME_*` variables and `.env` in the project root. What changes a result is a param instead
(`params/`); no value is in both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flame_core.cores import usable_cores
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.names import expanded, shown

EVERYWHERE = ("0.0.0.0", "::", "")  # values of `ui_host` that mean all addresses; none is a usable host name


def _default_workers() -> int:
    return max(1, min(8, usable_cores()))


def _host(address: str) -> str | None:
    """The host of an address, if it can be one."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return parts.hostname if parts.hostname and max(map(len, parts.hostname.split("."))) < 64 else None


class Settings(BaseSettings):
    """`FLAME_DEVICE=cuda flame train` and the like."""

    model_config = SettingsConfigDict(env_prefix="FLAME_", extra="ignore", frozen=True, str_strip_whitespace=True)

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where models run; auto: on a GPU if torch sees one"
    )
    workers: int = Field(default_factory=_default_workers, ge=1, description="processes that map over shards")
    engine: Literal["local", "ray"] = Field(
        default="local", description="what maps over shards: processes of this machine, or Ray (extra `scale`)"
    )
    ray_address: str | None = Field(
        default=None, min_length=1, description="of a running Ray cluster; by default Ray starts on this machine"
    )
    loader_workers: int | None = Field(
        default=None,
        ge=0,
        description="processes that decode pictures per training process, and threads that do so for an evaluation; "
        "by default none on a CPU, and on a GPU the cores it may use, less two, divided among the training processes",
    )
    embed_processes: int = Field(default=1, ge=1, description="processes that embed captions, one per GPU")
    train_processes: int = Field(default=1, ge=1, description="processes of a training, one per GPU")
    train_nodes: int | None = Field(
        default=None, ge=1, description="machines of a training; by default those of the Slurm step, or this one"
    )
    node_rank: int | None = Field(default=None, ge=0, description="which of these machines this is; 0 writes the model")
    rendezvous: str | None = Field(
        default=None, pattern=r"^\S+:\d{1,5}$", description="host:port on machine 0, where the machines meet"
    )
    join_seconds: float = Field(default=300.0, gt=0, description="how long machines wait for one another")
    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("flame")),
        description="folder of what is fetched once per user, such as wheels; by default in the user's cache",
    )
    stage_dir: Path | None = Field(
        default=None, description="folder of copies of buckets' files; by default `buckets` in `cache_dir`"
    )
    stage_bytes: int | None = Field(
        default=None, gt=0, description="bytes at most that these copies take; those used longest ago are deleted"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="what the terminal shows"
    )
    caption_server: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="address of the chat server that writes captions, such as http://localhost:8000/v1",
    )
    caption_key: SecretStr | None = Field(default=None, description="key of that server")
    caption_requests: int = Field(default=16, ge=1, le=4096, description="requests in flight to that server, at most")
    caption_timeout: float = Field(default=120.0, gt=0, description="seconds for one of its answers")
    checkpoint_seconds: float = Field(default=60.0, ge=0, description="time between two checkpoints")
    checkpoints_kept: int = Field(default=2, ge=1, description="how many of the newest checkpoints a training keeps")

    stop_grace_seconds: float = Field(default=120.0, ge=0, description="time for a stage to stop before it is killed")
    timezone: str = Field(default="UTC", description="of the schedules, such as Europe/Berlin")
    ui_host: str = Field(default="127.0.0.1", description="where `flame ui` listens; it has no login of its own")
    ui_names: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="names that Dagster and `flame serve` answer to besides loopback and ui_host, separated by commas",
    )
    code_overrides: bool = Field(
        default=False, description="whether Dagster's Launchpad may override params that fetch models or run code"
    )
    alert_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="a webhook that is told of every failed run of the interface",
    )
    dagster_port: int = Field(default=3000, ge=1, le=65535, description="where Dagster listens")
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="where MLflow listens")

    tracking_uri: str | None = Field(
        default=None, description="MLflow's address; `off` for none; by default the store that `flame ui` serves"
    )
    experiment: str = Field(default="flame", description="MLflow's experiment for trainings")
    registered_model: str = Field(
        default="flame",
        pattern=r"^[^'\"`/:\\]+$",
        description="MLflow's registered model; used in search filters, so some characters are refused",
    )

    @field_validator("ui_names", mode="before")
    @classmethod
    def _between_commas(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("cache_dir", "stage_dir", mode="before")
    @classmethod
    def _folder(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        own = cls.model_fields[str(info.field_name)]
        return expanded(value.strip()) if value.strip() else own.get_default(call_default_factory=True)

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return value if value == "UTC" else ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{shown(value)} is no time zone: write one such as Europe/Berlin") from None

    @field_validator("alert_url")
    @classmethod
    def _has_a_host(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and _host(value)):
            raise ValueError("it must be ASCII and name a host: https://chat.example/hooks/1")
        return value

    @field_validator("tracking_uri")
    @classmethod
    def _off_in_any_case(cls, value: str | None) -> str | None:
        return "off" if value is not None and value.lower() == "off" else value

    def ui_url(self, port: int) -> str:
        """The address at which this machine reaches a server that listens on `ui_host`."""
        name = "127.0.0.1" if self.ui_host in EVERYWHERE else self.ui_host
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def torch_device(self) -> str:
        """`cuda` or `cpu`; asking for a missing GPU is an error, never a silent fallback."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ParamsError("FLAME_DEVICE=cuda, but torch sees no GPU here; use FLAME_DEVICE=cpu or auto")
        return self.device

    def decoding_processes(self, ranks: int) -> int:
        """Processes that decode pictures, per training process."""
        if self.loader_workers is not None:
            return self.loader_workers
        return 0 if self.torch_device() == "cpu" else max(1, (usable_cores() - 2) // ranks)


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    try:
        return Settings(_env_file=Layout.find().project / ".env")  # type: ignore[call-arg]
    except UnicodeDecodeError as error:
        raise ParamsError(f"settings: .env must be UTF-8 text ({error})") from None
    except ValidationError as error:
        faults = "; ".join(f"FLAME_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise ParamsError(f"settings (environment or .env): {faults}") from None
