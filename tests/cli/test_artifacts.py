from __future__ import annotations

from pathlib import Path

from assay.cli.artifacts import is_artifact


def test_a_folder_of_a_model_is_no_artifact(tmp_path: Path) -> None:
    assert is_artifact(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert not is_artifact(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    assert is_artifact(str(tmp_path))


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    for name, content, expected in (
        ("model.gguf", b"GGUF", False),
        ("model.onnx", b"PK\x03\x04", False),
        ("packed", b"PK\x03\x04", True),
        ("packed.assay", b"", True),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_artifact(str(tmp_path / name)) is expected
    assert not is_artifact("resnet18")
