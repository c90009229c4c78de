"""Bayesian optimization: Optuna's tree-structured Parzen estimator learns from the trials so far.

Bergstra, Bardenet, Bengio and Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from assay.compile.schedules.choices import Choice
from assay.compile.tune.journal import Trial
from assay.compile.tune.space import Space
from assay.compile.tune.strategies.strategy import Strategy, untried
from assay.errors import MissingDependencyError

__all__ = ["STRATEGY"]

# A sampler may ask for what was tried already; after this many times it has nothing new to say.
_PATIENCE = 30
# The logarithm is what is minimized: a candidate that failed counts as ten times slower.
_FAILED_RATIO = 0.1


def _propose(space: Space, trials: Sequence[Trial]) -> Choice | None:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependencyError("optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parameters = space.parameters()
    # Optuna wants categories that JSON can hold.
    labels = {name: [str(value) for value in values] for name, values in parameters.items()}
    distributions: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in labels.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=len(trials), n_startup_trials=8)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        for trial in trials:
            known = _labels_of(space, trial.decided, parameters)
            if known is not None:
                value = trial.ratio if trial.status == "ok" else _FAILED_RATIO
                study.add_trial(
                    optuna.trial.create_trial(params=known, distributions=distributions, value=value)
                )
        for _ in range(_PATIENCE):
            asked = study.ask(distributions)
            values = {
                name: parameters[name][labels[name].index(label)] for name, label in asked.params.items()
            }
            candidate = space.choice(values)
            if untried(candidate, trials):
                return candidate
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return None


def _labels_of(
    space: Space, choice: Choice, parameters: Mapping[str, tuple[Any, ...]]
) -> dict[str, str] | None:
    """The labels of a candidate's values; None for one that lies outside the space."""
    values = {
        "tile": (choice.panel_width, choice.rows),
        "unroll": choice.unroll,
        "chunk": choice.chunk_rows,
        "serial": choice.serial,
    }
    if any(values[name] not in known for name, known in parameters.items()):
        return None
    return {name: str(value) for name, value in values.items()}


STRATEGY = Strategy(
    name="bayesian", description="Optuna's estimator, which learns from every trial", propose=_propose
)
