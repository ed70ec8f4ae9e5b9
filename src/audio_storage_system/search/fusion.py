"""One ranking from two: how well a passage's words match, and how near its meaning is. Pure."""

from __future__ import annotations

from collections.abc import Mapping

# How many candidates each way of searching contributes at first, and what a cosine of 1 is worth against the best BM25:
# measured by bench/retrieval.py on the even-numbered meetings, see docs/benchmarks.md. Equal-weight reciprocal rank
# fusion loses to BM25 alone where the embedder is weak.
POOL = 50
WEIGHTS = {"wordllama": 0.3}
DEFAULT_WEIGHT = 1.0


def weight_for(model: str) -> float:
    """The weight of the cosine for an embedder's model name."""
    return WEIGHTS.get(model, DEFAULT_WEIGHT)


def fuse(lexical: Mapping[int, float], semantic: Mapping[int, float], weight: float) -> list[tuple[int, float]]:
    """Every id of either mapping with its score, best first, ties by id.

    `lexical` holds BM25 scores (> 0), `semantic` cosines. The score is BM25 divided by its best, plus `weight` times
    the cosine; what a mapping lacks counts as 0.
    """
    best = max(lexical.values(), default=1.0)
    scores = {id_: lexical.get(id_, 0.0) / best + weight * semantic.get(id_, 0.0) for id_ in {*lexical, *semantic}}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
