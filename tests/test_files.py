"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkling import files
from inkling.errors import InklingError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    files.write_text(path, "old")

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("ne")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        files.write_file(path, fail_half_way)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.txt"]


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "a"
    with files.new_folder(target) as temporary:
        (temporary / "config.json").write_text("{}")
        assert not target.exists()
    assert (target / "config.json").read_text() == "{}"


def test_a_folder_that_fails_never_appears(tmp_path: Path) -> None:
    def fail_inside() -> None:
        with files.new_folder(tmp_path / "a") as temporary:
            (temporary / "config.json").write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-step-000010").mkdir()
    (tmp_path / ".unfinished-model.safetensors").write_bytes(b"half")
    (tmp_path / "model.safetensors").write_bytes(b"whole")
    files.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def write() -> None:
        with files.new_folder(place) as temporary:
            (temporary / "mine").write_text("1")
            place.mkdir()
            (place / "theirs").write_text("2")

    with pytest.raises(InklingError, match="appeared in the meantime"):
        write()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["run", "theirs"]
