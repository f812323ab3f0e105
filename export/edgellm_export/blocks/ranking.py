"""How DeepSeek's routers choose experts: the best ones of the best groups, by other numbers than the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgellm_export.blocks.build import Build


@dataclass(frozen=True)
class Ranking:
    """Experts are chosen from the `chosen_groups` best of `groups`, each as good as the sum of its `judged` highest
    scores. Scores are the softmax of what the router gives; if `corrected`, the sigmoid, to which, for the choice
    alone, a vector `e_score_correction_bias` is added. `scaling`: factor of the weights."""

    groups: int = 1
    chosen_groups: int = 1
    judged: int = 1
    corrected: bool = False
    scaling: float = 1.0


def ranked(
    b: Build, given: ir.Value, name: str, place: str, ranking: Ranking, count: int, chosen: int, *, normalized: bool
) -> tuple[ir.Value, ir.Value]:
    """given: [1, T, count], what the router `name` gives. Of each token's experts the weights and the numbers, each
    [1, T, chosen]. `normalized`: the weights are divided by their sum."""
    g = b.graph
    if ranking.corrected:
        scores = g.op("Sigmoid", given, name=f"{place}/Sigmoid")
        vector = b.vector(f"{name}.e_score_correction_bias", count).astype(b.activation)
        ranks = g.op("Add", scores, g.array(f"{name}.e_score_correction_bias", vector), name=f"{place}/Add")
    else:  # their softmax, which has the order of what is given
        total = g.op("ReduceLogSumExp", given, g.ints(-1), name=f"{place}/LogSumExp")
        ranks, scores = given, g.op("Exp", g.op("Sub", given, total, name=f"{place}/Sub"), name=f"{place}/Exp")
    if ranking.groups > 1:
        ranks = _within_groups(b, ranks, f"{place}/groups", ranking, count)
    _, choice = g.ops("TopK", ranks, g.ints(chosen), name=f"{place}/TopK", outputs=2, axis=-1)
    weights = g.op("GatherElements", scores, choice, name=f"{place}/Weights", axis=-1)
    if normalized:
        total = g.op("ReduceSum", weights, g.ints(-1), name=f"{place}/Total")
        weights = g.op("Div", weights, total, name=f"{place}/Share")
    if ranking.scaling != 1:
        factor = g.constant(f"/constants/router/{ranking.scaling}", np.array(ranking.scaling, b.activation))
        weights = g.op("Mul", weights, factor, name=f"{place}/Scaled")
    return weights, choice


def _within_groups(b: Build, ranks: ir.Value, place: str, ranking: Ranking, count: int) -> ir.Value:
    """ranks [1, T, count], with those of groups that are not chosen at -inf."""
    g = b.graph
    by_group = g.op("Reshape", ranks, g.ints(0, 0, ranking.groups, count // ranking.groups), name=f"{place}/Split")
    best, _ = g.ops("TopK", by_group, g.ints(ranking.judged), name=f"{place}/Best", outputs=2, axis=-1)
    sums = g.op("ReduceSum", best, g.ints(-1), name=f"{place}/Sums", keepdims=0)  # [1, T, groups]
    _, chosen = g.ops("TopK", sums, g.ints(ranking.chosen_groups), name=f"{place}/TopGroups", outputs=2, axis=-1)
    column = g.op("Unsqueeze", chosen, g.ints(-1), name=f"{place}/Unsqueeze")  # [1, T, chosen_groups, 1]
    numbers = g.constant(f"/constants/groups/{ranking.groups}", np.arange(ranking.groups, dtype=np.int64))
    equal = g.op("Equal", column, numbers, name=f"{place}/InGroup")
    among = g.op("Cast", equal, name=f"{place}/AsNumbers", to=int(b.activation_type))
    taken = g.op("ReduceMax", among, g.ints(2), name=f"{place}/Taken", keepdims=0)
    mask = g.op("Unsqueeze", g.op("Cast", taken, name=f"{place}/Mask", to=int(ir.DataType.BOOL)), g.ints(-1),
                name=f"{place}/Wide")  # fmt: skip
    low = g.constant("/constants/router/none", np.array(-np.inf, b.activation))
    return g.op("Reshape", g.op("Where", mask, by_group, low, name=f"{place}/Where"), g.ints(0, 0, count),
                name=f"{place}/Flat")  # fmt: skip
