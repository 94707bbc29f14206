"""Which variables a template writes although they may be empty, without having asked.

Asked is: `{% if x %}`, `{% if x is defined %}` and what follows from them (`and`, `not ... else`, `a if x else b`), and `x|default(...)`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jinja2 import nodes

from app.catalogue.variables import Variable
from app.rendering.places import Places
from app.rendering.syntax import TemplateProblem, path_of, written

Path = tuple[str, ...]
Known = frozenset[Path]
ITEM = "[]"  # the step from a list to what it holds
ANY = "*"  # a key that an operator has made up: `account.attributes.*`


def may_be_empty(tree: nodes.Template, places: Places, variables: Iterable[Variable]) -> Iterator[TemplateProblem]:
    """A problem (`may_be_empty`) for each place where a value is used that may be absent; the first of each name in a line."""
    walk = _Walk(frozenset(_empty_paths(variables)))
    walk.all(tree.body, frozenset(), {})
    for line, spoken in dict.fromkeys(walk.found):
        name = ".".join(spoken)
        detail = f"`{name}` may be empty here: ask `{{% if {name} is defined %}}` first, or write `{name}|default('...')`."
        yield TemplateProblem(line, places.column(line, *written(spoken)), "may_be_empty", detail)


def _empty_paths(variables: Iterable[Variable], front: Path = ()) -> Iterator[Path]:
    for variable in variables:
        path = (*front, *(step for step in variable.name.split(".") if step))
        if variable.kind == "list":  # an empty list is gone through without harm
            yield from _empty_paths(variable.items, (*path, ITEM))
        elif variable.may_be_empty:
            yield path


@dataclass(slots=True)
class _Walk:
    empty: frozenset[Path]
    found: list[tuple[int, Path]] = field(default_factory=list)

    def all(self, given: Iterable[nodes.Node], asked: Known, own: dict[str, Path]) -> None:
        """`asked`: paths that are there for sure; `own`: what the template's own names stand for, () for what nobody knows."""
        for node in given:
            self.one(node, asked, own)

    def one(self, node: nodes.Node, asked: Known, own: dict[str, Path]) -> None:
        if isinstance(node, nodes.If):
            self.condition(node.test, asked, own)
            self.all(node.body, asked | _when(node.test, own), dict(own))
            otherwise = asked | _unless(node.test, own)
            for branch in node.elif_:
                self.condition(branch.test, otherwise, own)
                self.all(branch.body, otherwise | _when(branch.test, own), dict(own))
                otherwise |= _unless(branch.test, own)
            self.all(node.else_, otherwise, dict(own))
        elif isinstance(node, nodes.CondExpr):
            self.condition(node.test, asked, own)
            self.one(node.expr1, asked | _when(node.test, own), own)
            if node.expr2 is not None:
                self.one(node.expr2, asked | _unless(node.test, own), own)
        elif isinstance(node, nodes.And | nodes.Or):
            self.condition(node, asked, own)
        elif isinstance(node, nodes.For):
            self.one(node.iter, asked, own)
            source = _real(path_of(node.iter), own)
            inner = own | {name.name: () for name in node.target.find_all(nodes.Name)} | {"loop": ()}
            if isinstance(node.target, nodes.Name):
                inner[node.target.name] = (*source, ITEM) if source else ()
            if node.test is not None:
                self.condition(node.test, asked, inner)
                asked |= _when(node.test, inner)
            self.all(node.body, asked, inner)
            self.all(node.else_, asked, dict(own))
        elif isinstance(node, nodes.Assign):
            self.one(node.node, asked, own)
            if isinstance(node.target, nodes.Name):
                own[node.target.name] = _real(path_of(node.node), own)
        elif isinstance(node, nodes.Filter) and node.name in ("default", "d") and path_of(node.node) is not None:
            self.all([*node.args, *node.kwargs], asked, own)
        elif isinstance(node, nodes.Test) and node.name in ("defined", "undefined", "none", "number", "string") and path_of(node.node) is not None:
            pass
        elif (spoken := path_of(node)) is not None:
            path = _real(spoken, own)
            if (path in self.empty or (*path[:-1], ANY) in self.empty) and path not in asked:
                self.found.append((node.lineno, spoken))
        else:
            self.all(node.iter_child_nodes(), asked, own)

    def condition(self, node: nodes.Node, asked: Known, own: dict[str, Path]) -> None:
        """What is asked for its truth alone may be empty; what stands behind an `and` or `or` knows what was asked before it."""
        if isinstance(node, nodes.And | nodes.Or):
            self.condition(node.left, asked, own)
            self.condition(node.right, asked | (_when if isinstance(node, nodes.And) else _unless)(node.left, own), own)
        elif isinstance(node, nodes.Not):
            self.condition(node.node, asked, own)
        elif path_of(node) is None:
            self.one(node, asked, own)


def _when(test: nodes.Node, own: dict[str, Path]) -> Known:
    """What is there if the condition holds."""
    if isinstance(test, nodes.And):
        return _when(test.left, own) | _when(test.right, own)
    if isinstance(test, nodes.Or):
        return _when(test.left, own) & _when(test.right, own)
    if isinstance(test, nodes.Not):
        return _unless(test.node, own)
    asked = test.node if isinstance(test, nodes.Test) and test.name in ("defined", "number", "string") else test
    path = _real(path_of(asked), own)
    return frozenset({path}) if path else frozenset()


def _unless(test: nodes.Node, own: dict[str, Path]) -> Known:
    """What is there if it does not."""
    if isinstance(test, nodes.Or):
        return _unless(test.left, own) | _unless(test.right, own)
    if isinstance(test, nodes.And):
        return _unless(test.left, own) & _unless(test.right, own)
    if isinstance(test, nodes.Not):
        return _when(test.node, own)
    if isinstance(test, nodes.Test) and test.name in ("undefined", "none"):
        path = _real(path_of(test.node), own)
        return frozenset({path}) if path else frozenset()
    return frozenset()


def _real(path: Path | None, own: dict[str, Path]) -> Path:
    """The path of the variable itself: through the loops and sets of the template, without `data.`; () of what is none."""
    if path is None:
        return ()
    if path[0] in own:
        front = own[path[0]]
        return (*front, *path[1:]) if front else ()
    return path[1:] if path[0] == "data" and len(path) > 1 else path
