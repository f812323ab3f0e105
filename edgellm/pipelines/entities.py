"""Token labels to named entities, as Hugging Face's token-classification groups them. No model is needed here.

Labels follow the scheme B-TYPE (an entity begins) and I-TYPE (it goes on); a label without either continues one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from edgellm.errors import OptionError
from edgellm.pipelines.scores import FloatArray

Strategy = Literal["none", "simple", "first", "average", "max"]
Join = Callable[[Sequence[str]], str]  # tokens of the vocabulary to text

WORD_STRATEGIES = ("first", "average", "max")


@dataclass(frozen=True)
class LabelledToken:
    """A token that may be part of an entity. `scores` [labels] are probabilities; `start` and `end` characters of the
    text; `index` is the place in the encoding; one that is `inside_word` continues the word of the token before."""

    word: str
    scores: FloatArray
    start: int
    end: int
    index: int
    inside_word: bool


@dataclass(frozen=True)
class Entity:
    """A part of the text with a label: one of the model's, or a type without B- and I- once grouped. The entity of a
    single token has that token's `index`."""

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None


def strategy_of(name: Any) -> Strategy:
    """The strategy of that name, whatever its case. Raises OptionError."""
    known: tuple[Strategy, ...] = get_args(Strategy)
    for strategy in known:
        if isinstance(name, str) and name.lower() == strategy:
            return strategy
    raise OptionError(f"aggregation_strategy is {name!r}, expected one of {', '.join(known)}")


def older_spelling(grouped_entities: bool | None, ignore_subwords: bool | None) -> Strategy | None:
    """The strategy that Hugging Face's older options ask for; None where neither was given."""
    if grouped_entities is None and ignore_subwords is None:
        return None
    if not grouped_entities:
        return "none"
    return "first" if ignore_subwords else "simple"


def entities_of(
    tokens: Sequence[LabelledToken], labels: Mapping[int, str], strategy: Strategy, join: Join
) -> list[Entity]:
    """The entities that tokens make. "none" gives one for each token, "simple" puts neighbours of one type together.
    The others do that with words: "first" takes a word's label from its first token, "average" from the mean of its
    tokens' scores, "max" from its surest token."""
    if strategy in WORD_STRATEGIES:
        return grouped([_of_word(word, labels, strategy, join) for word in words_of(tokens)], join)
    single = [
        Entity(labels[int(t.scores.argmax())], float(t.scores.max()), t.word, t.start, t.end, t.index) for t in tokens
    ]
    return single if strategy == "none" else grouped(single, join)


def words_of(tokens: Iterable[LabelledToken]) -> list[list[LabelledToken]]:
    words: list[list[LabelledToken]] = []
    for token in tokens:
        if token.inside_word and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def grouped(entities: Sequence[Entity], join: Join) -> list[Entity]:
    """The entities with neighbours of one type as one; B- begins another one."""
    groups: list[list[Entity]] = []
    for entity in entities:
        prefix, kind = split_label(entity.label)
        if groups and prefix == "I" and split_label(groups[-1][-1].label)[1] == kind:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [_merged(group, join) for group in groups]


def split_label(label: str) -> tuple[str, str]:
    """Prefix and type of a label: "B-PER" is ("B", "PER"); what has no prefix continues, so "O" is ("I", "O")."""
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """The entities of several windows in the text's order; of those that overlap the longest, then the surest,
    stays."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda e: e.start):
        if not kept or not kept[-1].start <= entity.start < kept[-1].end:
            kept.append(entity)
        elif (entity.end - entity.start, entity.score) > (kept[-1].end - kept[-1].start, kept[-1].score):
            kept[-1] = entity
    return kept


def as_dict(entity: Entity) -> dict[str, Any]:
    """The entity with the keys of Hugging Face's pipeline: a token has "entity" and "index", a group "entity_group"."""
    place = {"word": entity.word, "start": entity.start, "end": entity.end}
    if entity.index is None:
        return {"entity_group": entity.label, "score": entity.score, **place}
    return {"entity": entity.label, "score": entity.score, "index": entity.index, **place}


def _of_word(word: Sequence[LabelledToken], labels: Mapping[int, str], strategy: Strategy, join: Join) -> Entity:
    scores = [token.scores for token in word]
    if strategy == "average":
        deciding = np.nanmean(scores, axis=0)
    else:
        deciding = scores[0] if strategy == "first" else max(scores, key=lambda row: float(row.max()))
    text = join([token.word for token in word])
    return Entity(labels[int(deciding.argmax())], float(deciding.max()), text, word[0].start, word[-1].end)


def _merged(group: Sequence[Entity], join: Join) -> Entity:
    # Hugging Face cuts any label at its first "-" here, also one that begins with neither B- nor I-.
    kind = group[0].label.split("-", 1)[-1]
    score = float(np.mean([entity.score for entity in group]))
    first = replace(group[0], label=kind, score=score, word=join([entity.word for entity in group]), index=None)
    return replace(first, end=group[-1].end)
