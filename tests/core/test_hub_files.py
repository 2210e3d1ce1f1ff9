"""Which files of a model are fetched: pickled weights only where there are no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepreward.core.files import hub


@pytest.mark.parametrize(
    ("weights", "there", "downloads"),
    [(["*.safetensors"], "model.safetensors", 1), (["*.safetensors"], "pytorch_model.bin", 2), ([], "config.json", 1)],
)
def test_pickled_weights_are_fetched_where_no_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: list[str], there: str, downloads: int
) -> None:
    (tmp_path / there).touch()
    patterns: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        patterns.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert hub.fetch("owner/name", weights) == tmp_path
    assert len(patterns) == downloads
    assert set(weights) <= set(patterns[0])
    assert downloads == 1 or set(hub.PICKLED) <= set(patterns[1])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/home/mia/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/0123abcd", "Qwen/Qwen2.5-0.5B"),
        ("/home/mia/secret/tiny", "tiny"),
        ("models--owner--two--dashes", "owner/two--dashes"),
        ("", ""),
    ],
)
def test_the_name_of_a_folder_tells_no_path(folder: str, name: str) -> None:
    assert hub.name_of(folder) == name
