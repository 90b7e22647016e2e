from __future__ import annotations

from flame_core.project.env_file import env_text
from flame_core.settings import Settings


def test_every_setting_is_there_with_its_meaning_and_can_be_uncommented(tmp_path):
    lines = env_text().splitlines()
    for name, field in Settings.model_fields.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"# FLAME_{name.upper()}="))
        assert field.description and lines[at - 1].startswith("# ") and len(lines[at - 1]) <= 120
    named = [line.removeprefix("# ") for line in lines if line.startswith("# FLAME_") and not line.endswith("=")]
    (tmp_path / ".env").write_text("\n".join(named))
    defaults = Settings(_env_file=None)  # type: ignore[call-arg]
    assert Settings(_env_file=tmp_path / ".env") == defaults  # type: ignore[call-arg]
    assert len(named) > 10
