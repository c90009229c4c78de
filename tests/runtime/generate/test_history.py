from __future__ import annotations

import numpy as np

from assay.runtime.generate.history import TokenHistory


def test_grows_and_shrinks_like_a_list():
    generator, history, plain = np.random.default_rng(0), TokenHistory([4, 5]), [4, 5]
    for token in range(500):
        if generator.random() < 0.2:
            length = int(generator.integers(len(plain) // 2, len(plain) + 1))
            history.truncate(length)
            del plain[length:]
        history.append(token)
        plain.append(token)
        assert history.last == token
    assert history.tokens.tolist() == plain
    assert len(history) == len(plain)
    assert len(TokenHistory()) == 0
