"""Every operation that changes something leaves a record of it."""

import inspect
from types import FunctionType, ModuleType

from app.core import audit
from app.core.config import Settings
from app.core.openapi import operations
from app.main import create_app

# These change nothing that anybody decided.
LEAVES_NONE = {
    "post_events": "what happened is told by the event itself, with its source and id",
    "preview_template": "reads",
    "count_template_audience": "reads",
    "compare_invoice": "reads",
    "check_gateway": "reads, at the far end",
    "send_own_code": "a code on its way changes nothing; the verification that follows is recorded",
}


def reached(function: FunctionType) -> set[str]:
    """The names of all functions of ours that this one may come to, by the names that its code speaks of."""
    seen: dict[int, str] = {}
    waiting = [function]
    while waiting:
        one = inspect.unwrap(waiting.pop())
        if not isinstance(one, FunctionType) or id(one) in seen or not one.__module__.startswith("app."):
            continue
        seen[id(one)] = f"{one.__module__}.{one.__qualname__}"
        codes = [one.__code__]
        names: set[str] = set()
        while codes:
            code = codes.pop()
            names |= {*code.co_names, *code.co_freevars}
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
        known = [one.__globals__[name] for name in names if name in one.__globals__]
        known += [getattr(module, name) for module in known if isinstance(module, ModuleType) for name in names if hasattr(module, name)]
        for thing in known:
            if isinstance(thing, type) and thing.__module__.startswith("app."):
                waiting += [member for name, member in vars(thing).items() if name in names and isinstance(member, FunctionType)]
            elif isinstance(thing, FunctionType):
                waiting.append(thing)
    return set(seen.values())


def test_every_operation_that_changes_something_comes_to_the_audit(settings: Settings):
    app = create_app(settings)
    record = f"{audit.record.__module__}.{audit.record.__qualname__}"

    changing = {route.operation_id: route.endpoint for _, method, route in operations(app) if method.upper() not in {"GET", "HEAD"}}
    silent = {name for name, endpoint in changing.items() if record not in reached(endpoint)}

    assert len(changing) > 50
    assert silent == LEAVES_NONE.keys() & changing.keys()
    assert changing.keys() >= LEAVES_NONE.keys()
