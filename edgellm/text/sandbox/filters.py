"""Filters and tests that count: Jinja's own, and four that only Metered writes into templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jinja2 import pass_context
from jinja2.runtime import Context

from edgellm.text.sandbox.budget import CALL, RenderBudget, Value, budget_of, shallow
from edgellm.text.sandbox.costs import FILTERS, SLOW, SLOWNESS, WALKED, fields

TICK, PASS, WALK, JOIN = " tick", " pass", " walk", " join"  # names that templates cannot write


def metered_filter(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    cost, walks, slowness = FILTERS[name], name in WALKED, SLOWNESS if name in SLOW else 1
    takes_context = _takes(function)

    @pass_context
    def metered(context: Context, value: Value, /, *arguments: Value, **named: Value) -> Value:
        budget, before = budget_of(context), budget_of(context).left
        for given in (value, *arguments, *named.values()):
            budget.walk(given) if walks else budget.spend(shallow(given))
        factor = fields(str(value)) if name == "format" else slowness
        budget.spend(CALL // 4 + cost(value, *arguments, *named.values()) + (before - budget.left) * (factor - 1))
        if walks and isinstance(value, Iterator):
            value = budget.sequence(value, walks=True)
        return metered_result(budget, function(*takes_context(context), value, *arguments, **named))

    return metered


def metered_test(function: Callable[..., Value]) -> Callable[..., Value]:
    takes_context = _takes(function)

    @pass_context
    def metered(context: Context, value: Value, /, *arguments: Value, **named: Value) -> Value:
        budget = budget_of(context)
        budget.spend(CALL // 4)
        if arguments or named:  # those that compare
            budget.walk([value, *arguments, *named.values()])
        return function(*takes_context(context), value, *arguments, **named)

    return metered


def _takes(function: Callable[..., Value]) -> Callable[[Context], tuple[Value, ...]]:
    """What a filter or a test of Jinja's wants in front of its arguments."""
    kind = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    by_kind: Mapping[str | None, Callable[[Context], tuple[Value, ...]]] = {
        "context": lambda context: (context,),
        "eval_context": lambda context: (context.eval_ctx,),
        "environment": lambda context: (context.environment,),
        None: lambda context: (),
    }
    return by_kind[kind]


def metered_result(budget: RenderBudget, result: Value) -> Value:
    if isinstance(result, Iterator):
        return budget.sequence(result)
    budget.spend(shallow(result))
    return result


@pass_context
def _tick(context: Context, steps: int) -> bool:
    budget_of(context).spend(steps)
    return True


@pass_context
def _join(context: Context, values: list[Value]) -> str:
    budget_of(context).walk(values)
    return "".join(map(str, values))


def _passing(count: Callable[[RenderBudget, Value], None]) -> Callable[..., Value]:
    """A filter that gives back its value, for which `count` takes steps from the budget."""

    @pass_context
    def passed(context: Context, value: Value) -> Value:
        count(budget_of(context), value)
        return value

    return passed


finalized = _passing(RenderBudget.walk)
SPECIAL: Mapping[str, Callable[..., Value]] = {
    TICK: _tick,
    PASS: _passing(lambda budget, value: budget.spend(shallow(value))),
    WALK: finalized,
    JOIN: _join,
}
