from __future__ import annotations

from typing import Any

import pytest

import assay.compile.reverify
from assay.errors import VerificationError


@pytest.fixture
def verified(manifest, monkeypatch) -> list[Any]:
    """Names of the models that artifacts were compared on; the comparison itself is replaced."""
    names: list[Any] = []

    def verify_again(path: Any, spec: Any, **options: Any) -> Any:
        names.append(spec.name)
        return {level.target.name: list(level.verification.cases) for level in manifest.levels}

    monkeypatch.setattr(assay.compile.reverify, "verify_again", verify_again)
    return names


@pytest.fixture
def registered(manifest, monkeypatch) -> None:
    """Registers a model of the artifact's name and interface."""
    from assay.cli.artifacts import spec_from_manifest
    from assay.registry import Registry

    spec = spec_from_manifest(manifest)
    registry: Registry[Any] = Registry("model")
    registry.add(spec.name, spec)
    monkeypatch.setattr("assay.models.registry.models", lambda: registry)


@pytest.mark.usefixtures("registered")
def test_the_model_of_the_artifacts_name_is_compared(cli, make_artifact, verified):
    path = make_artifact()
    found = cli.json("verify", path)
    assert found["levels"]["x86-64-v3"][0]["output"] == "y"
    assert verified == ["pair"]
    assert "1.00e-06" in cli("verify", path).stdout
    assert cli("verify", path, "-q").stdout == f"{path} agrees with ONNX Runtime.\n"


def test_a_model_that_is_not_registered_must_be_given(cli, make_artifact, verified):
    error = cli.error("verify", make_artifact(), code=2)
    assert "'pair'" in error["message"]
    assert "--model" in error["hint"]
    assert verified == []
    cli("verify", make_artifact(), "--model", "silero-vad")
    assert verified == ["silero-vad"]


@pytest.mark.usefixtures("registered")
def test_outputs_that_differ(cli, make_artifact, monkeypatch):
    def differ(*arguments: Any, **options: Any) -> None:
        raise VerificationError("Output 'y' differs.")

    monkeypatch.setattr(assay.compile.reverify, "verify_again", differ)
    cli.error("verify", make_artifact(), code=8)
