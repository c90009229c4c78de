from __future__ import annotations

from assay.results.language import language_cells


def test_above_one_is_in_our_favour_for_times_and_for_rates(make_record):
    def record(engine, metric, unit, value, **sizes):
        return make_record(
            [[value], [value], [value]], engine=engine, metric=metric, unit=unit, value=value, sizes=sizes
        )

    records = [
        record("assay", "ttft", "s", 0.1, batch=1, prompt=256),
        record("llama.cpp", "ttft", "s", 0.5, batch=1, prompt=256),
        record("assay", "decode", "tokens/s", 200.0, batch=4, depth=256),
        record("llama.cpp", "decode", "tokens/s", 100.0, batch=4, depth=256),
        record("assay", "load_time", "s", 0.2, batch=1, prompt=256),
    ]
    headings, ttft, decode, load = language_cells(records)
    assert headings == ["model", "threads", "measured", "ours", "llama.cpp", "ours against llama.cpp"]
    assert ttft[2:] == ["time to first token, 256 tokens", "100 ms", "500 ms", "5.00 (5.00 to 5.00)"]
    assert decode[2:5] == ["decode, at 256 tokens, batch 4", "200 tokens/s", "100 tokens/s"]
    assert decode[5].startswith("2.00")
    assert load[2:] == ["import and load", "200 ms", "", ""]


def test_latencies_of_other_models_have_no_line(make_record):
    assert len(language_cells([make_record()])) == 1
