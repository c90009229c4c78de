"""Gate runs from end to end, on a repository that holds Assay's own code and a few tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from assay.ci.gate.builds import BuildOptions
from assay.ci.gate.decision import Settings, Verdict
from assay.ci.gate.records import gate_records
from assay.ci.gate.report import Status
from assay.ci.gate.repository import WORKTREE, find_repository
from assay.ci.gate.run import GatePlan, run_gate
from assay.errors import UsageError
from assay.results.store_rows import unusable

ROOT = Path(__file__).parents[3]
PORTIONS = ("compile", "runtime", "models", "benchmarks", "results", "ci", "cli")
SAVE = "save_weights(folder / WEIGHTS, lowered.weights)"
LESS_EXACT = """save_weights(
                folder / WEIGHTS,
                {name: (array * array.dtype.type(1.0002)) for name, array in lowered.weights.items()},
            )"""


def product(columns: int) -> bytes:
    """y = x @ w, with w of [64, columns]."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(64, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data = model.SerializeToString()
    assert isinstance(data, bytes)
    return data


@pytest.fixture
def assay_repository(git):
    """Two commits: the second has code that is less exact, and models that grow, break, vanish and appear."""
    for name in PORTIONS:
        shutil.copytree(
            ROOT / name / "assay", git.root / name / "assay", ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", git.root)
    git.commit(
        **{"models/same.onnx": product(32), "models/grows.onnx": product(32)},
        **{"models/breaks.onnx": product(32), "models/vanishes.onnx": product(32)},
    )
    variant = git.root / "compile" / "assay" / "compile" / "variant.py"
    text = variant.read_text()
    assert SAVE in text
    variant.write_text(text.replace(SAVE, LESS_EXACT))
    git.commit(
        **{"models/grows.onnx": product(4096), "models/breaks.onnx": product(32)[:100]},
        **{"models/vanishes.onnx": None, "models/appears.onnx": product(32)},
    )
    return find_repository(git.root)


def plan(repository, *models: str, base: str = "HEAD~1", head: str = "HEAD", **options) -> GatePlan:
    return GatePlan(
        repository=repository,
        base=repository.resolve(base),
        head=repository.resolve(head),
        models=models,
        **{"budget": 0.0, "instructions": False, "build": BuildOptions(target="native"), **options},
    )


@pytest.mark.slow
def test_what_is_planted_is_caught_and_told_apart(assay_repository):
    names = ("same", "grows", "breaks", "vanishes", "appears")
    report = run_gate(plan(assay_repository, *(f"models/{name}.onnx" for name in names)))
    assert report.status is Status.REGRESSION
    assert report.base.own_code
    assert report.head.own_code
    found = {(Path(row.model).stem, row.metric): row for row in report.rows}

    loss = found["same", "error"]
    assert loss.verdict is Verdict.REGRESSION, loss.reason
    assert loss.ratio is None or loss.ratio > 10
    assert not found["same", "artifact_size"].fails
    assert found["same", "latency"].verdict is Verdict.INCONCLUSIVE  # there was no time for rounds

    for metric in ("weights", "artifact_size"):
        assert found["grows", metric].verdict is Verdict.REGRESSION, metric
    assert found["grows", "weights"].head >= 64 * 4096 * 4

    broken = found["breaks", "latency"]
    assert (broken.verdict, broken.fails) == (Verdict.BROKEN, True)
    assert "The head does not build" in broken.reason
    assert "breaks.onnx" in broken.reason

    gone, new = found["vanishes", "latency"], found["appears", "latency"]
    assert (gone.verdict, gone.fails) == (Verdict.MISSING, True)
    assert (new.verdict, new.fails) == (Verdict.MISSING, False)
    assert "The base lacks it" in new.reason
    assert len(list((assay_repository.root / ".git").glob("worktrees/*"))) == 0


@pytest.mark.slow
def test_a_models_repository_is_measured_with_the_assay_that_is_installed(git):
    git.commit(**{"net.onnx": product(32)})
    git.commit(readme="Nothing that is measured changes.")
    (git.root / "note").write_text("not committed")
    repository = find_repository(git.root)
    settings = Settings(first_look=2, max_rounds=2)
    options = {"budget": 1e6, "threads": (1, 2), "settings": settings}
    report = run_gate(plan(repository, "net.onnx", head=WORKTREE, **options))
    assert report.head.worktree
    assert report.head.dirty
    assert not report.head.own_code
    rows = {(row.threads, row.metric): row for row in report.rows}
    assert {threads for threads, metric in rows if metric == "latency"} == {1, 2}
    latency = rows[1, "latency"]
    assert latency.verdict is not Verdict.BROKEN, latency.reason
    assert len(latency.base_runs) == len(latency.head_runs) == 2
    assert all(value > 0 for value in (*latency.base_runs, *latency.head_runs))
    exact = [row for row in report.rows if row.threads is None and row.metric != "compile_time"]
    assert len(exact) == 6
    assert {row.verdict for row in exact} == {Verdict.UNCHANGED}
    assert len(report.fitness) == 6
    records = gate_records(report)
    assert all(unusable(record) is None for record in records)
    assert {record.model for record in records} == {"net"}
    latencies = {
        (record.commit, record.dirty, record.threads): record.samples
        for record in records
        if record.metric == "latency"
    }
    head, base = (repository.resolve(ref).commit for ref in ("HEAD", "HEAD~1"))
    assert latencies.keys() == {(base, False, 1), (base, False, 2), (head, True, 1), (head, True, 2)}
    assert latencies[head, True, 1] == latency.head_runs
    quality = {"error", "absolute_error", "relative_error", "cosine_distance"}
    assert quality < {record.metric for record in records}


def write_language_model(folder: Path) -> None:
    """A Llama of two layers with random weights, as transformers saves it."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models

    from assay.models.decoders.read_config import config_from_hf
    from assay.models.providers.random_decoder import RandomWeightsOf

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = RandomWeightsOf(config_from_hf(config))
    save_file({name: weights.read(name) for name in weights.names()}, folder / "model.safetensors")
    words = {f"w{number}": number for number in range(256)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))


@pytest.mark.slow
def test_a_language_model_has_two_phases(git):
    write_language_model(git.root / "models" / "talker")
    git.commit(a="1")
    git.commit(a="2")
    settings = Settings(first_look=2, max_rounds=2)
    repository = find_repository(git.root)
    report = run_gate(plan(repository, "models/talker", budget=1e6, settings=settings, instructions=True))
    assert report.notes == ("No instructions of language models: models/talker.",)
    latencies = {row.benchmark: row for row in report.rows if row.metric == "latency"}
    assert latencies.keys() == {f"models/talker/{phase}/threads=1" for phase in ("prefill", "decode")}
    for row in latencies.values():
        assert row.verdict is not Verdict.BROKEN, row.reason
        assert len(row.base_runs) == len(row.head_runs) == 2
    assert report.builds[0].sizes == {"batch": 1, "prompt": 16}
    records = gate_records(report)
    assert all(unusable(record) is None for record in records)
    timed = {record.metric for record in records if record.method == "gate"}
    assert {"ttft", "decode", "load_time", "peak_memory", "artifact_size", "absolute_error"} < timed


def test_nothing_to_compare(git):
    git.commit(a="1")
    with pytest.raises(UsageError, match="nothing to compare"):
        run_gate(plan(find_repository(git.root), base="HEAD"))


def test_a_model_that_neither_side_has_is_a_mistake_of_the_command_line(git):
    git.commit(**{"models/net.onnx": "none"})
    with pytest.raises(UsageError, match=r"Neither side has a file models/nett\.onnx") as raised:
        run_gate(plan(find_repository(git.root), "models/nett.onnx", base="HEAD"))
    assert raised.value.hint == "Did you mean models/net.onnx?"


def test_more_threads_than_cpus(git):
    git.commit(**{"net.onnx": "none"})
    with pytest.raises(UsageError, match="threads were asked for"):
        run_gate(plan(find_repository(git.root), "net.onnx", base="HEAD", threads=(100_000,)))
