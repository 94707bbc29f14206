"""The tree of a template before it becomes code: what may stand in it, what is put round it, and which names it does not know.

Allowed is a small language: texts, variables, if, for, set of a simple name, filters and tests of the list, arithmetic, comparison.
There are no calls but `range(...)`, so no method of any object can be reached, and no templates beside this one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, Signature, signature
from math import isfinite
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from app.rendering.filters import BITS, CALENDAR, FILTERS, LOOP, Free
from app.rendering.places import Places
from app.rendering.questions import TESTS

MOST_NODES = 4000
DEEPEST = 60
DEEPEST_LOOPS = 4  # one in another

PLAIN: tuple[type[nodes.Node], ...] = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Filter,
    nodes.Test,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Mod,
    nodes.Neg,
    nodes.Pos,
    nodes.Concat,
    nodes.CondExpr,
    nodes.If,
    nodes.For,
    nodes.Assign,
    nodes.Tuple,
    nodes.List,
    nodes.Call,
    nodes.Keyword,
)
# How it is written, and what it is called.
SPOKEN: dict[type[nodes.Node], tuple[str, str]] = {
    nodes.Include: ("include", "`include`"),
    nodes.Import: ("import", "`import`"),
    nodes.FromImport: ("from", "`import`"),
    nodes.Extends: ("extends", "`extends`"),
    nodes.Block: ("block", "`block`"),
    nodes.Macro: ("macro", "`macro`"),
    nodes.CallBlock: ("call", "`call`"),
    nodes.FilterBlock: ("filter", "`{% filter %}`: put filters behind a value, with `|`"),
    nodes.AssignBlock: ("set", "`{% set %}` with a block: write `{% set name = value %}`"),
    nodes.With: ("with", "`with`: use `set`"),
    nodes.Pow: ("**", "`**`"),
    nodes.Dict: ("{", "dictionaries"),
    nodes.NSRef: ("set", "namespaces: set one simple name"),
    nodes.Scope: ("autoescape", "`autoescape`"),
    nodes.ScopedEvalContextModifier: ("autoescape", "`autoescape`"),
    nodes.EvalContextModifier: ("autoescape", "`autoescape`"),
}


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong with a template, and where; the column, counted from 1, where it can be found."""

    line: int
    column: int | None
    code: str
    detail: str


def refused(tree: nodes.Template, places: Places) -> Iterator[TemplateProblem]:
    """Everything in the tree that a template may not have."""
    count = 0
    waiting: list[tuple[nodes.Node, int, int, int]] = [(tree, 1, 0, 0)]  # a stack of our own: the tree may be deeper than Python's
    while waiting:
        node, line, depth, loops = waiting.pop()
        line = node.lineno or line  # Jinja numbers the lines of most nodes
        count += 1
        loops += isinstance(node, nodes.For)
        if count > MOST_NODES or depth > DEEPEST or loops > DEEPEST_LOOPS:
            yield TemplateProblem(line, None, "too_complex", "This template is too complex: make it shorter, or nest it less.")
            return
        for words, code, detail in _objections(node):
            yield TemplateProblem(line, places.column(line, *words), code, detail)
        if isinstance(node, PLAIN):
            waiting.extend((child, line, depth + 1, loops) for child in reversed(list(node.iter_child_nodes())))


def _objections(node: nodes.Node) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(how it is written, code, sentence) of what is wrong with this node itself."""
    if not isinstance(node, PLAIN):
        written, spoken = SPOKEN.get(type(node), ("", type(node).__name__))
        yield (written,), "not_allowed", f"A template may not use {spoken}."
    elif isinstance(node, nodes.Name) and node.name.startswith("_"):
        yield (node.name,), "not_allowed", "A name may not begin with an underscore."
    elif isinstance(node, nodes.Getattr) and node.attr.startswith("__"):
        yield (node.attr,), "not_allowed", "A name may not begin with an underscore."
    elif isinstance(node, nodes.Filter | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
        yield ("*",), "not_allowed", "Write the arguments one by one."
    elif isinstance(node, nodes.Filter):
        if node.name not in FILTERS:
            yield ("|", *node.name.split(".")), "unknown_filter", f"There is no filter `{node.name}`. There are: {', '.join(FILTERS)}."
        elif not _fits(FILTERS[node.name], node):
            yield ("|", node.name), "bad_arguments", f"The filter `{node.name}` does not take these arguments. It takes: {_wanted(FILTERS[node.name])}."
    elif isinstance(node, nodes.Test):
        if node.name not in TESTS:
            yield ("is", node.name), "unknown_test", f"There is no test `{node.name}`. There are: {', '.join(TESTS)}."
        elif not _fits(TESTS[node.name], node):
            yield ("is", node.name), "bad_arguments", f"The test `{node.name}` does not take these arguments. It takes: {_wanted(TESTS[node.name])}."
    elif isinstance(node, nodes.Const) and _is_huge(node.value):
        yield (), "not_allowed", "This number is too large."
    elif isinstance(node, nodes.For) and node.recursive:
        yield ("recursive",), "not_allowed", "A loop may not be recursive."
    elif isinstance(node, nodes.Assign) and not isinstance(node.target, nodes.Name):
        yield ("set",), "not_allowed", "Set one simple name at a time."
    elif isinstance(node, nodes.Call):
        plain = isinstance(node.node, nodes.Name) and node.node.name == "range"
        if not plain or node.kwargs or node.dyn_args or node.dyn_kwargs or not 1 <= len(node.args) <= 3:
            name = node.node.attr if isinstance(node.node, nodes.Getattr) else getattr(node.node, "name", "")
            yield (name,), "not_allowed", "A template may call nothing but range(...): use filters."


@cache
def _parameters(function: Callable[..., Any]) -> Signature:
    """What stands in the brackets: without the value itself, and without what Jinja gives by itself."""
    found = signature(function)
    hidden = 2 if hasattr(function, "jinja_pass_arg") else 1
    return found.replace(parameters=list(found.parameters.values())[hidden:])


def _fits(function: Callable[..., Any], node: nodes.Filter | nodes.Test) -> bool:
    try:
        _parameters(function).bind(*node.args, **{str(keyword.key): keyword for keyword in node.kwargs})
    except TypeError:
        return False
    return True


def _wanted(function: Callable[..., Any]) -> str:
    said = [name if parameter.default is Parameter.empty else f"{name}={parameter.default!r}" for name, parameter in _parameters(function).parameters.items()]
    return ", ".join(said) or "-"


def _is_huge(value: object) -> bool:
    return (isinstance(value, int) and value.bit_length() > BITS) or (isinstance(value, float) and not isfinite(value))


def guard(tree: nodes.Template) -> nodes.Template:
    """The tree with the bounds put in that can only be kept at run time."""
    guarded: nodes.Template = _Guard().visit(tree)
    return guarded


class _Guard(NodeTransformer):
    """Loops pay for their rounds, joining with ~ and lists and ranges are counted: all by filters that no template can spell."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2.visitor's name
        asked = [node.test] if node.test is not None else []  # of each item, as the body is written
        weight = sum(1 for part in (*node.body, *node.else_, *asked) for _ in part.find_all(nodes.Node)) + 1
        self.generic_visit(node)
        node.iter = _filter("$steps", node.iter, nodes.Const(weight, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("$concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        # A scalar written down tells at once that no list is equal to it; everything else may be two lists.
        within = any(operand.op in ("in", "notin") for operand in node.ops)
        if within or not any(isinstance(side, nodes.Const) for side in (node.expr, *(operand.expr for operand in node.ops))):
            self.generic_visit(node)
            node.expr = _filter("$sought", node.expr)
            for operand in node.ops:
                operand.expr = _filter("$sought", operand.expr)
            return node
        return self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        # Jinja slices by itself, without asking the environment.
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (bound or nodes.Const(None, lineno=node.lineno) for bound in (node.arg.start, node.arg.stop, node.arg.step))
        return _filter("$cut", node.node, *bounds)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("$flat", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("$flat", node) if node.ctx == "load" else node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter("$range", nodes.List(node.args, lineno=node.lineno))


def _filter(name: str, value: nodes.Node, *arguments: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def unknown_names(tree: nodes.Template, places: Places, sample: Mapping[str, Any]) -> Iterator[TemplateProblem]:
    """Names that the sample does not have, also in branches that it does not take.

    What a template asks about (`is defined`) or has an answer for (`default`) it may name; the variables of its own loops
    and sets, and what hangs on them, are left to the rendering."""
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"} | {"loop"}
    asked = {path for guarded in _asking(tree) if (path := path_of(guarded.node)) is not None}
    for node in tree.find_all((nodes.Name, nodes.Getattr)):
        path = path_of(node)
        if path is None or path[0] in own or getattr(node, "ctx", "load") != "load" or path == ("range",):
            continue
        if any(path[:end] in asked for end in range(1, len(path) + 1)) or _has(sample, path):
            continue
        if len(path) > 1 and not _has(sample, path[:-1]):
            continue  # said once, of the name in front
        detail = f"`{'.'.join(path)}` is undefined here. There are: {', '.join(_beside(sample, path))}."
        yield TemplateProblem(node.lineno, places.column(node.lineno, *written(path)), "undefined", detail)


def _asking(tree: nodes.Template) -> Iterator[nodes.Filter | nodes.Test]:
    found: list[nodes.Filter | nodes.Test] = [*tree.find_all(nodes.Filter), *tree.find_all(nodes.Test)]
    for node in found:
        if node.name in ("default", "d", "defined", "undefined"):
            yield node


def path_of(node: nodes.Node | None) -> tuple[str, ...] | None:
    """`("account", "name")` of `account.name`; None of anything else."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr) and (front := path_of(node.node)) is not None:
        return (*front, node.attr)
    return None


def written(path: tuple[str, ...]) -> list[str]:
    """The tokens of a path: `account`, `.`, `name`."""
    return [token for name in path for token in (".", name)][1:]


def _has(sample: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if isinstance(sample, Free):
            return True
        if isinstance(sample, dict):
            if name not in sample:
                return False
            sample = sample[name]
        else:
            return name in CALENDAR or name in LOOP
    return True


def _beside(sample: Any, path: tuple[str, ...]) -> list[str]:
    for name in path[:-1]:
        sample = sample[name]
    return sorted(name for name in sample if not name.startswith("_")) if isinstance(sample, dict) else sorted(CALENDAR)
