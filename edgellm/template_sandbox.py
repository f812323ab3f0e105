"""Jinja for templates of strangers: what they may call, and how much work they may make.

A template is a program. Jinja's sandbox keeps it from Python's insides; this module keeps it from running on, and from
filling the memory. Every loop, call, filter and operator of a render draws on one budget, before it is done where its
result may be larger than what went in. So a template ends by itself, in any thread, without a clock.

The unit of the budget is one step: an element of a list, TEXT_BYTES of text, a node of the template's syntax each time
that it is passed; calls take several. MAX_STEPS of them take a second or a few.
"""

from __future__ import annotations

import functools
import re
import string
import sys
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodType,
    WrapperDescriptorType,
)
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from edgellm.errors import ChatTemplateError

MAX_STEPS = 4_000_000
MAX_SOURCE = 128 * 1024  # characters of a template; the longest of known models have 30,000
MAX_RANGE = 100_000
MAX_NUMBER = 1 << 16  # of arguments that say how long something becomes
MAX_BITS = 4096  # of products and powers
MAX_PADDING = 9_999  # width and precision in format strings
MAX_INDENT = 16
MAX_NESTING = 40  # statements in one another
TEXT_BYTES = 16  # of text in one step
CALL = 32  # steps of a call; a quarter of them of a filter or a test

Value = Any
ATOMS = frozenset((int, float, bool, type(None)))
FLAT = ATOMS | {str, bytes, range}
FIELDS = "edgellm_fields"  # of a format method: how often it may write an argument
TICK, PASS, WALK, JOIN = " tick", " pass", " walk", " join"  # filters that templates cannot write: see Metered


class TemplateLimitError(ChatTemplateError):
    """The template asked for more work than it may have."""


class Budget:
    """The steps that a render has left."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TemplateLimitError(
                f"the chat template was stopped: it needs more than {MAX_STEPS:,} steps for these messages; shorten "
                "them, or use a package whose template is not broken"
            )

    def walk(self, value: Value) -> None:
        """For what looks at all of a value, however deep."""
        if type(value) in ATOMS:
            self.spend(1)
            return
        waiting = [value]
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind is Namespace:
                item = object.__getattribute__(item, "_Namespace__attrs")
            self.spend(shallow(item))
            if kind in (list, tuple):
                waiting.extend(each for each in item if type(each) not in ATOMS)
            elif kind not in FLAT:
                waiting.extend(_parts(item))

    def sequence(self, items: Iterator[Value], *, walks: bool = False) -> Iterator[Value]:
        """`items`, each of which counts when it is taken."""
        for item in items:
            self.walk(item) if walks else self.spend(shallow(item))
            yield item


class MeteredContext(Context):
    """The variables of one render, with its budget."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.budget = Budget()

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        context = super().derived(locals)
        assert isinstance(context, MeteredContext)
        context.budget = self.budget
        return context


def shallow(value: Value) -> int:
    """Steps to copy a value, or to go over it once."""
    kind = type(value)
    if kind is str:
        return 1 + sys.getsizeof(value) // TEXT_BYTES
    if kind in (list, tuple, dict):
        return 1 + len(value)
    if kind in ATOMS:
        return 1
    if isinstance(value, str | bytes):
        return 1 + sys.getsizeof(value) // TEXT_BYTES
    if isinstance(value, Mapping | list | tuple | set | frozenset | range | ItemsView | KeysView | ValuesView):
        return 1 + len(value)
    return 1


def _parts(value: Value) -> Iterable[Value]:
    """What lies in a value of any kind."""
    if isinstance(value, Mapping):
        return (*value, *value.values())
    if isinstance(value, list | tuple | set | frozenset | ItemsView | KeysView | ValuesView):
        return value
    return ()


# Methods of Python's own values: those that a template may call, with what they cost beyond the value itself.


def _longer(value: Value, width: Value, *rest: Value) -> int:
    return _length(width)


def _replaced(value: str, old: Value = "", new: Value = "", count: Value = -1, *rest: Value) -> int:
    if not isinstance(old, str) or not isinstance(new, str):
        return 0
    found = value.count(old)
    return (found if not isinstance(count, int) or count < 0 else min(found, count)) * sys.getsizeof(new) // TEXT_BYTES


def _joined(value: str, items: Value = (), *rest: Value) -> int:
    return sys.getsizeof(value) * len(items) // TEXT_BYTES if isinstance(items, Sequence | Mapping) else 0


def _nothing(value: Value, *rest: Value) -> int:
    return 0


def _split(value: str, separator: Value = None, *rest: Value) -> int:
    return value.count(separator) if isinstance(separator, str) and separator else len(value) // 2


def _lines(value: str, *rest: Value) -> int:
    return len(value) // 2


_TEXT_METHODS = (
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower "
)
_TEXT_METHODS += "isidentifier isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix "
_TEXT_METHODS += "removesuffix rfind rindex rpartition rstrip startswith strip swapcase title upper encode decode hex"
_SAME = dict.fromkeys(_TEXT_METHODS.split(), _nothing)
_METHODS: Mapping[type, Mapping[str, Callable[..., int]]] = {
    str: _SAME
    | dict.fromkeys(("center", "ljust", "rjust", "zfill"), _longer)
    | {"split": _split, "rsplit": _split, "splitlines": _lines, "replace": _replaced, "join": _joined},
    bytes: _SAME,
    dict: dict.fromkeys(("get", "items", "keys", "values", "copy"), _nothing),
    list: dict.fromkeys(("index", "count", "copy"), _nothing),
    tuple: dict.fromkeys(("index", "count"), _nothing),
    int: dict.fromkeys(("bit_length", "is_integer", "conjugate"), _nothing),
    float: dict.fromkeys(("is_integer", "conjugate"), _nothing),
}
_UNBOUND = (MethodDescriptorType, ClassMethodDescriptorType, WrapperDescriptorType)


def _length(value: Value) -> int:
    """Of an argument that says how long something becomes."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise TemplateLimitError(f"the chat template asks for a length of {value}, at most {MAX_NUMBER} are allowed")
    return abs(value) if isinstance(value, int) else sys.getsizeof(value)


def _method_cost(function: Value, arguments: tuple[Value, ...], named: Mapping[str, Value]) -> int | None:
    """Of a method of one of Python's own values, beyond the value and the arguments; None for other functions. Raises
    TemplateLimitError for methods that are not in the table."""
    owner = getattr(function, "__self__", None)
    if isinstance(function, _UNBOUND) or (isinstance(owner, type) and owner in _METHODS):
        raise TemplateLimitError(f"the chat template calls {getattr(function, '__name__', function)!r} of a type")
    if not isinstance(function, BuiltinFunctionType | MethodType):
        return None
    methods = next((table for kind, table in _METHODS.items() if isinstance(owner, kind)), None)
    if methods is None:
        return None
    name = function.__name__
    if name not in methods:
        raise TemplateLimitError(f"the chat template calls {name!r} of a {type(owner).__name__}, which it may not")
    return methods[name](owner, *arguments, *named.values())


# Filters: Jinja's own, but for those that make HTML, and what they cost beyond their arguments.


def _indented(value: Value, width: Value = 4, *rest: Value) -> int:
    lines = value.count("\n") + 1 if isinstance(value, str) else 1
    return lines * (_length(width) // TEXT_BYTES + 1)


def _in_json(value: Value, *rest: Value) -> int:
    for argument in rest:
        if (isinstance(argument, int) and abs(argument) > MAX_INDENT) or (
            isinstance(argument, str) and len(argument) > MAX_INDENT
        ):
            raise TemplateLimitError(f"the chat template indents JSON by more than {MAX_INDENT} characters")
    return 0


def _filled(value: Value, count: Value = 0, *rest: Value) -> int:
    return _length(count) + _listed(value)


def _rounded(value: Value, precision: Value = 0, *rest: Value) -> int:
    if isinstance(precision, int) and abs(precision) > MAX_INDENT:
        raise TemplateLimitError(f"the chat template rounds to {precision} digits, at most {MAX_INDENT} are allowed")
    return 0


def _formatted(value: Value, *rest: Value) -> int:
    _check_percent_format(str(value))
    return 0


def _listed(value: Value, *rest: Value) -> int:
    return len(value) if isinstance(value, str) else 0


def _joined_items(value: Value, separator: Value = "", *rest: Value) -> int:
    return _joined(str(separator), value) + _listed(value)


def _summed(value: Value, attribute: Value = None, start: Value = 0, *rest: Value) -> int:
    if not isinstance(start, int | float):
        raise TemplateLimitError("the chat template adds up values that are not numbers")
    return 0


_SHALLOW = (
    "abs attr count d default first float int items last length list random reverse reject rejectattr safe select "
)
_SHALLOW += "selectattr map e escape"
_DEEP = "dictsort groupby max min sort string unique"
_FAST_TEXT = "capitalize lower trim truncate upper"
_SLOW_TEXT = "title urlencode wordcount wordwrap"
_ITERATING = "list map reject rejectattr select selectattr sort unique groupby min max random"
_FILTERS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys([*_SHALLOW.split(), *_DEEP.split(), *_FAST_TEXT.split(), *_SLOW_TEXT.split()], _nothing),
    **dict.fromkeys(_ITERATING.split(), _listed),
    "batch": _filled,
    "center": _longer,
    "format": _formatted,
    "indent": _indented,
    "join": _joined_items,
    "replace": lambda value, *rest: _replaced(str(value), *rest),
    "round": _rounded,
    "slice": _filled,
    "sum": _summed,
    "tojson": _in_json,
}
_WALKED = frozenset((*_DEEP.split(), "join", "format", "tojson", "sum", "replace"))
_SLOW = frozenset((*_SLOW_TEXT.split(), *_DEEP.split(), "indent"))  # take longer than a copy does
_SLOWNESS = 16


def _budget(context: Context) -> Budget:
    assert isinstance(context, MeteredContext)
    return context.budget


def _metered_filter(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    cost, walks, slowness = _FILTERS[name], name in _WALKED, _SLOWNESS if name in _SLOW else 1
    takes_context = _takes(function)

    @pass_context
    def metered(context: Context, value: Value, /, *arguments: Value, **named: Value) -> Value:
        budget, before = _budget(context), _budget(context).left
        for given in (value, *arguments, *named.values()):
            budget.walk(given) if walks else budget.spend(shallow(given))
        factor = _fields(str(value)) if name == "format" else slowness
        budget.spend(CALL // 4 + cost(value, *arguments, *named.values()) + (before - budget.left) * (factor - 1))
        if walks and isinstance(value, Iterator):
            value = budget.sequence(value, walks=True)
        return _metered_result(budget, function(*takes_context(context), value, *arguments, **named))

    return metered


def _metered_test(function: Callable[..., Value]) -> Callable[..., Value]:
    takes_context = _takes(function)

    @pass_context
    def metered(context: Context, value: Value, /, *arguments: Value, **named: Value) -> Value:
        budget = _budget(context)
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


def _metered_result(budget: Budget, result: Value) -> Value:
    if isinstance(result, Iterator):
        return budget.sequence(result)
    budget.spend(shallow(result))
    return result


@pass_context
def _tick(context: Context, steps: int) -> bool:
    _budget(context).spend(steps)
    return True


@pass_context
def _pass(context: Context, value: Value) -> Value:
    _budget(context).spend(shallow(value))
    return value


@pass_context
def _walk(context: Context, value: Value) -> Value:
    _budget(context).walk(value)
    return value


@pass_context
def _join(context: Context, values: list[Value]) -> str:
    _budget(context).walk(values)
    return "".join(map(str, values))


@pass_context
def _finalize(context: Context, value: Value) -> Value:
    _budget(context).walk(value)
    return value


# The syntax tree


class Metered(NodeTransformer):
    """Puts steps into a template: at the beginning of whatever is repeated, and around what Jinja's code does without
    asking its environment: `~`, slices, comparisons, keys."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through(PASS, node.iter)  # type: ignore[arg-type]  # what is looped over is an expression
        if node.test is not None:
            node.test = nodes.And(_steps([node.test], node), node.test, lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(_steps(node.body, node), lineno=node.lineno))
        return node

    def visit_body(self, node: nodes.Macro | nodes.CallBlock | nodes.Block) -> nodes.Node:
        self.generic_visit(node)
        defaults = [] if isinstance(node, nodes.Block) else node.defaults
        node.body.insert(0, nodes.ExprStmt(_steps([*node.body, *defaults], node), lineno=node.lineno))
        return node

    visit_Macro = visit_CallBlock = visit_Block = visit_body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through(JOIN, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _through(WALK, node.expr)
        for operand in node.ops:
            operand.expr = _through(WALK, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _through(PASS, node.node)
        else:
            node.arg = _through(WALK, node.arg)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _through(WALK, node.key)
        return node


def _check_nesting(node: nodes.Node, depth: int = 0) -> None:
    """Python takes twenty loops in one another; Jinja's compiler looks at all of a block again for each that is around
    it."""
    depth += isinstance(node, nodes.Stmt) and not isinstance(node, nodes.Output)
    if depth > MAX_NESTING:
        raise TemplateLimitError(f"the chat template nests more than {MAX_NESTING} statements")
    for child in node.iter_child_nodes():
        _check_nesting(child, depth)


def _through(name: str, value: nodes.Expr) -> nodes.Expr:
    if isinstance(value, nodes.Const):
        return value
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _steps(passed: Sequence[nodes.Node], at: nodes.Node) -> nodes.Expr:
    """An expression that takes the steps of passing these nodes once, and is true."""
    steps = nodes.Const(1 + sum(map(_size, passed)), lineno=at.lineno)
    return nodes.Filter(steps, TICK, [], [], None, None, lineno=at.lineno)


def _size(node: nodes.Node) -> int:
    """Steps to pass a node once. Bodies that count for themselves are left out."""
    if isinstance(node, nodes.TemplateData):
        return shallow(node.data)
    own = shallow(node.value) if isinstance(node, nodes.Const) else 1
    if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
        return own
    return own + sum(map(_size, node.iter_child_nodes()))


# Format strings


def _fields(text: str) -> int:
    return max(1, text.count("%"))


def _check_percent_format(text: str) -> None:
    for widths in re.findall(r"%[^a-zA-Z%]*", text):
        if "*" in widths or any(int(number[:9]) > MAX_PADDING for number in re.findall(r"\d+", widths)):
            raise TemplateLimitError(f"the chat template pads a text to more than {MAX_PADDING} characters")


def _check_brace_format(text: str) -> None:
    for _, _, spec, _ in string.Formatter().parse(text):  # Raises ValueError for a text that is no format.
        widths = re.findall(r"\d+", spec or "")
        if "{" in (spec or "") or any(int(number[:9]) > MAX_PADDING for number in widths):
            raise TemplateLimitError(f"the chat template pads a text to more than {MAX_PADDING} characters")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, for templates that went through Metered."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    context_class = MeteredContext

    def __init__(self, filters: Mapping[str, Callable[..., Value]]) -> None:
        """`filters`: more of them, or others for Jinja's own."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            optimized=False,  # what is computed while compiling would count for nothing
            finalize=_finalize,
        )
        self.globals = {name: self.globals[name] for name in ("dict", "cycler", "joiner", "namespace")}
        self.globals["range"] = _range
        self.tests = {name: _metered_test(test) for name, test in dict[str, Any](self.tests).items()}
        known = {name: function for name, function in {**self.filters, **filters}.items() if name in _FILTERS}
        self.filters = {name: _metered_filter(name, function) for name, function in known.items()}
        self.filters |= {TICK: _tick, PASS: _pass, WALK: _walk, JOIN: _join}

    def compiled(self, source: str) -> jinja2.Template:
        """Raises TemplateLimitError, or what Jinja and Python raise for a template that is none."""
        if len(source) > MAX_SOURCE:
            raise TemplateLimitError(
                f"the chat template has {len(source)} characters, at most {MAX_SOURCE} are allowed"
            )
        tree = self.parse(source)
        _check_nesting(tree)
        Metered().visit(tree)
        tree.set_environment(self)
        code = self.compile(tree)
        return jinja2.Template.from_code(self, code, self.make_globals(None))

    def call(self, context: Context, function: Value, /, *arguments: Value, **named: Value) -> Value:
        budget, before = _budget(context), _budget(context).left
        budget.spend(CALL)
        if not isinstance(function, Macro):  # a macro counts for itself
            budget.walk([*arguments, *named.values()])
            budget.spend((before - budget.left) * (getattr(function, FIELDS, 1) - 1))
            cost = _method_cost(function, arguments, named)
            if cost is not None:
                owner = function.__self__
                budget.walk(owner) if isinstance(owner, list | tuple) else budget.spend(shallow(owner))
                budget.spend(cost)
        return _metered_result(budget, super().call(context, function, *arguments, **named))

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        _budget(context).spend(_operation_cost(operator, left, right))
        if operator == "%" and isinstance(left, str):
            for _ in range(_fields(left) if isinstance(right, Mapping) else 1):
                _budget(context).walk(right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Value) -> Callable[..., str] | None:
        """`format` and `format_map` of a text."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def checked(*arguments: Value, **named: Value) -> str:
            _check_brace_format(str(value.__self__))
            return wrapped(*arguments, **named)

        setattr(checked, FIELDS, str(value.__self__).count("{"))
        return checked


def _operation_cost(operator: str, left: Value, right: Value) -> int:
    """Of `left operator right`, before it is computed. Raises TemplateLimitError for numbers that become too large."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (max(right, 1) if operator == "**" else 1) + right.bit_length()
        if operator in ("*", "**") and bits > MAX_BITS:
            raise TemplateLimitError(f"the chat template computes a number of more than {MAX_BITS} bits")
        return 1
    if operator == "*" and isinstance(left, int) != isinstance(right, int):
        number, value = (left, right) if isinstance(left, int) else (right, left)
        return shallow(value) * max(number, 1)
    if operator == "%" and isinstance(left, str):
        _check_percent_format(left)
    return shallow(left) + shallow(right)


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
