"""Jinja's sandbox, in which all work is counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgellm.text.sandbox.budget import CALL, MeteredContext, TemplateLimitError, Value, budget_of, shallow
from edgellm.text.sandbox.costs import FILTERS, check_brace_format, fields, method_cost, operation_cost
from edgellm.text.sandbox.filters import SPECIAL, finalized, metered_filter, metered_result, metered_test
from edgellm.text.sandbox.syntax import Metered, check_nesting

MAX_SOURCE = 128 * 1024  # characters of a template; the longest of known models have 30,000
MAX_RANGE = 100_000
FIELDS = "edgellm_fields"  # of a format method: how often it may write an argument


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, for templates that went through Metered."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    context_class = MeteredContext

    def __init__(self, filters: Mapping[str, Callable[..., Value]]) -> None:
        """`filters` are more of them, or others for Jinja's own."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            optimized=False,  # what is computed while compiling would count for nothing
            finalize=finalized,
        )
        self.globals = {name: self.globals[name] for name in ("dict", "cycler", "joiner", "namespace")}
        self.globals["range"] = _range
        self.tests = {name: metered_test(test) for name, test in dict[str, Any](self.tests).items()}
        known = {name: function for name, function in {**self.filters, **filters}.items() if name in FILTERS}
        self.filters = {name: metered_filter(name, function) for name, function in known.items()}
        self.filters |= SPECIAL

    def compiled(self, source: str) -> jinja2.Template:
        """Raises TemplateLimitError, or what Jinja and Python raise for a template that is none."""
        if len(source) > MAX_SOURCE:
            raise TemplateLimitError(
                f"the chat template has {len(source)} characters, at most {MAX_SOURCE} are allowed"
            )
        tree = self.parse(source)
        check_nesting(tree)
        Metered().visit(tree)
        tree.set_environment(self)
        code = self.compile(tree)
        return jinja2.Template.from_code(self, code, self.make_globals(None))

    def call(self, context: Context, function: Value, /, *arguments: Value, **named: Value) -> Value:
        budget, before = budget_of(context), budget_of(context).left
        budget.spend(CALL)
        if not isinstance(function, Macro):  # a macro counts for itself
            budget.walk([*arguments, *named.values()])
            budget.spend((before - budget.left) * (getattr(function, FIELDS, 1) - 1))
            cost = method_cost(function, arguments, named)
            if cost is not None:
                owner = function.__self__
                budget.walk(owner) if isinstance(owner, list | tuple) else budget.spend(shallow(owner))
                budget.spend(cost)
        return metered_result(budget, super().call(context, function, *arguments, **named))

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        budget_of(context).spend(operation_cost(operator, left, right))
        if operator == "%" and isinstance(left, str):
            for _ in range(fields(left) if isinstance(right, Mapping) else 1):
                budget_of(context).walk(right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Value) -> Callable[..., str] | None:
        """A text's `format` or `format_map`, whose widths are checked first."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def checked(*arguments: Value, **named: Value) -> str:
            check_brace_format(str(value.__self__))
            return wrapped(*arguments, **named)

        setattr(checked, FIELDS, str(value.__self__).count("{"))
        return checked


def _range(*arguments: int) -> range:
    made = range(*arguments)
    if any(abs(argument) >= 1 << 31 for argument in arguments) or len(made) > MAX_RANGE:
        raise TemplateLimitError(f"the chat template counts further than {MAX_RANGE:,}")
    return made


class GenerationTag(Extension):
    """`{% generation %}`: marks the assistant's words for training; here it only lets its body through."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
