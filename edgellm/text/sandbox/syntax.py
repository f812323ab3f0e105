"""Counting written into a template's syntax tree."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from edgellm.text.sandbox.budget import TemplateLimitError, shallow
from edgellm.text.sandbox.filters import JOIN, PASS, TICK, WALK

MAX_NESTING = 40  # statements in one another


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


def check_nesting(node: nodes.Node, depth: int = 0) -> None:
    """Raises TemplateLimitError for statements that lie too deep in one another: Python takes twenty loops, and Jinja's
    compiler looks at all of a block again for each that is around it."""
    depth += isinstance(node, nodes.Stmt) and not isinstance(node, nodes.Output)
    if depth > MAX_NESTING:
        raise TemplateLimitError(f"the chat template nests more than {MAX_NESTING} statements")
    for child in node.iter_child_nodes():
        check_nesting(child, depth)


def _through(name: str, value: nodes.Expr) -> nodes.Expr:
    if isinstance(value, nodes.Const):
        return value
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _steps(passed: Sequence[nodes.Node], at: nodes.Node) -> nodes.Expr:
    """An expression that takes the steps of passing these nodes once, and is true."""
    steps = nodes.Const(1 + sum(map(_size, passed)), lineno=at.lineno)
    return nodes.Filter(steps, TICK, [], [], None, None, lineno=at.lineno)


def _size(node: nodes.Node) -> int:
    """How many steps it takes to pass a node once. Bodies that count for themselves are left out."""
    if isinstance(node, nodes.TemplateData):
        return shallow(node.data)
    own = shallow(node.value) if isinstance(node, nodes.Const) else 1
    if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
        return own
    return own + sum(map(_size, node.iter_child_nodes()))
