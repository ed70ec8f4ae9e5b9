"""Whether search follows a new version of a transcript: decided by a rule from what is known of both. Pure.

Scores of one engine and model can be compared, those of two cannot: there it counts how far the two agree, and whether
one is a stand-in's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from audio_storage_system.catalogue.transcripts import FALLBACK, LIVE
from audio_storage_system.errors import InvalidInput
from audio_storage_system.records import Segment, Transcript

Rule = Literal["always", "if-better", "never"]
RULES: tuple[Rule, ...] = get_args(Rule)
# From this share of common words on, two engines heard the same, and the newer one is taken.
AGREED = 0.9
SHORTEST_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether search follows the new version, and why. `asks`: it does not, since only a person can tell."""

    follow: bool
    reason: str
    asks: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a version. `log_probability`: the mean over its sound; `None` where the engine gives none."""

    engine: str
    model: str
    stands_in: bool = False
    log_probability: float | None = None
    confidence: float | None = None

    @classmethod
    def of(cls, version: Transcript, segments: Sequence[Segment]) -> Judged:
        """From a version and its segments."""
        return cls(
            engine=version.engine,
            model=str(version.parameters.get("model", version.whisper_model)),
            stands_in=FALLBACK in version.flags or LIVE in version.flags,
            log_probability=_mean([(s.avg_logprob, s.end - s.start) for s in segments]),
            confidence=_mean([(s.confidence, s.end - s.start) for s in segments]),
        )


def rule_of(activate: bool | str | None) -> Rule | None:
    """The rule meant: `True` is always, `False` never; `None` is always too, except for a stand-in's version where
    another engine's is followed. Raises `InvalidInput`."""
    if activate is None or activate in RULES:
        return activate
    if isinstance(activate, bool):
        return "always" if activate else "never"
    raise InvalidInput(reason=f'activate is {", ".join(RULES)}, True, False or None, not "{activate}"')


def decide(rule: Rule | None, present: Judged | None, new: Judged, agreement: float = 0.0) -> Decision:
    """Whether search follows `new` instead of `present` (`None`: there is none). agreement: the share of words that
    both say, 0…1."""
    if rule == "never":
        return Decision(False, "as asked")
    if rule == "always":
        return Decision(True, "as asked")
    if present is None:
        return Decision(True, "there was none before")
    if new.stands_in and not present.stands_in:
        return Decision(False, f"{new.engine} only stood in, and the present one is of {present.engine}")
    if rule is None:
        return Decision(True, "the latest")
    if present.stands_in and not new.stands_in:
        return Decision(True, f"{present.engine} had only stood in")
    return _by_score(present, new) or _by_agreement(present, new, agreement)


def _by_score(present: Judged, new: Judged) -> Decision | None:
    """Which of two of one engine and model is surer of what it heard; `None` where that cannot be compared."""
    if (present.engine, present.model) != (new.engine, new.model):
        return None
    if present.log_probability is not None and new.log_probability is not None:
        return _surer("mean log-probability", present.log_probability, new.log_probability)
    if present.confidence is not None and new.confidence is not None:
        return _surer("confidence", present.confidence, new.confidence)
    return None


def _surer(name: str, before: float, now: float) -> Decision:
    if now > before:
        return Decision(True, f"surer: {name} {now:.3f}, before {before:.3f}")
    return Decision(False, f"no surer: {name} {now:.3f}, before {before:.3f}")


def _by_agreement(present: Judged, new: Judged, agreement: float) -> Decision:
    told = f"{new.engine} {new.model}".strip(), f"{present.engine} {present.model}".strip()
    if agreement >= AGREED:
        return Decision(True, f"{told[0]} and {told[1]} agree on {agreement:.0%} of the words, and it is newer")
    reason = f"{told[0]} and {told[1]} agree on {agreement:.0%} of the words only: see which is right"
    return Decision(False, reason, asks=True)


def _mean(scores: Sequence[tuple[float | None, float]]) -> float | None:
    """The mean of the scores there are, each weighted by its seconds."""
    known = [(score, max(seconds, SHORTEST_SECONDS)) for score, seconds in scores if score is not None]
    return sum(s * w for s, w in known) / sum(w for _, w in known) if known else None
