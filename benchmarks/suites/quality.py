"""Quality: errors against the reference engine, and perplexity. The same build gives the same figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites._settings import SETTINGS
from suites._suite import Suite, built, missing_skips, skip, tracked

if TYPE_CHECKING:
    from assay.runtime.manifest import VerifiedCase

__all__ = ["Errors", "Perplexity"]


class Errors(Suite):
    """What verification found when the artifact was built, over all outputs and sizes."""

    param_names = ("model", "target", "scheme", "profile")
    params = (
        [*SETTINGS.models, *SETTINGS.language_models],
        SETTINGS.targets,
        SETTINGS.schemes,
        SETTINGS.profiles,
    )

    def setup(self, model: str, target: str, scheme: str, profile: str) -> None:
        """Build."""
        self.build = built(model, target, scheme, profile)

    def _cases(self) -> tuple[VerifiedCase, ...]:
        from assay.runtime.levels import choose_level

        cases = choose_level(self.build.manifest).verification.cases
        if not cases:
            skip("the artifact was never compared with the reference")
        return cases

    @tracked("absolute error")
    def track_error(self, model: str, target: str, scheme: str, profile: str) -> float:
        """The largest absolute error of an element."""
        return max(case.max_absolute_error for case in self._cases())

    @tracked("1 - cosine")
    def track_cosine_distance(self, model: str, target: str, scheme: str, profile: str) -> float:
        """One less the smallest cosine similarity, so that less is better."""
        return max(0.0, 1.0 - min(case.cosine_similarity for case in self._cases()))

    @tracked("1 - cosine")
    def track_scheme_cosine_distance(self, model: str, target: str, scheme: str, profile: str) -> float:
        """The same of the model with weights in the scheme against the model before."""
        quantization = self.build.manifest.quantization
        if quantization is None or not quantization.errors:
            skip(f"the scheme changes no weights of {model}")
        return max(0.0, 1.0 - min(each.cosine_similarity for each in quantization.errors))


class Perplexity(Suite):
    """Of language models with a tokenizer, on the text of the reports of `assay quantize`."""

    param_names = ("model", "target", "scheme")
    params = (SETTINGS.language_models, SETTINGS.targets, SETTINGS.schemes)

    def setup(self, model: str, target: str, scheme: str) -> None:
        """Build; skips models without a tokenizer."""
        self.build = built(model, target, scheme)
        decoder = self.build.manifest.decoder
        if decoder is None or decoder.tokenizer is None:
            skip(f"{model} has no tokenizer")

    @tracked("perplexity")
    def track_perplexity(self, model: str, target: str, scheme: str) -> float:
        """Perplexity of the artifact."""
        from assay.compile.quantize.tasks import artifact_perplexity

        with missing_skips():
            return artifact_perplexity(self.build.path).after
