"""The contract: what FastAPI generates, with the problems, the security and the error codes said as they are."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from app.core.auth import CABINET
from app.core.errors import NotFound
from app.core.http import API, CONTRACT, required_scope

STATIC = Path(__file__).resolve().parent / "static"


class FieldErrorShape(BaseModel):
    model_config = ConfigDict(title="FieldError")

    pointer: str = Field(description="RFC 6901 JSON pointer into the request")
    code: str
    detail: str


class ProblemShape(BaseModel):
    """RFC 9457. `code` is for programs and never changes; `detail` says what to change."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldErrorShape]
    request_id: str


PROBLEM = {"$ref": "#/components/responses/Problem"}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of this application."""
    made = get_openapi(
        title=app.title, version=app.version, routes=app.routes, summary="Subscriber notifications of a telecom billing", webhooks=app.webhooks.routes
    )
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemShape.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["FieldError"] = problem.pop("$defs")["FieldErrorShape"]
    problem["properties"]["errors"]["items"] = {"$ref": "#/components/schemas/FieldError"}
    schemas["Problem"] = problem
    components["responses"] = {
        "Problem": {"description": "A refusal, with a code", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    }
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key `vst_...` of an operator, a billing or a dashboard"},
        "cabinet": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A subscriber's token; reaches /me alone"},
    }
    for path, method, route in operations(app):
        _complete(made["paths"][path][method], path, method, route)
    for item in made.get("webhooks", {}).values():
        for told in item.values():
            told["responses"].pop("422", None)  # what an endpoint of the billing answers is its own business
    return made


def operations(app: FastAPI) -> list[tuple[str, str, APIRoute]]:
    """Every documented operation with the route behind it. `app.state.routers` lists what was included, and under which prefix."""
    return [
        (prefix + route.path_format, method.lower(), route)
        for prefix, router in app.state.routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in sorted(route.methods or ())
    ]


def _complete(operation: dict[str, Any], path: str, method: str, route: APIRoute) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if not path.startswith(API):
        statuses = [403] if path.startswith("/metrics") else [422, 503] if "{" in path else [503]
    else:
        scope = required_scope(route)
        if scope is None:
            raise AssertionError(f"{method} {path} does not say who may call it")
        cabinet = scope.scope == CABINET
        operation["security"] = [{"cabinet" if cabinet else "key": []}]
        operation["x-scope"] = scope.scope
        statuses = [400, 401, 403, 422, 429, 503]
        if "{" in path or cabinet or method == "delete":
            statuses.append(404)
        if method != "get":
            statuses += [409, 413, 415]
        if any(parameter["name"].lower() == "if-match" for parameter in operation.get("parameters", [])):
            statuses += [412, 428]
    for status in sorted(statuses):
        responses[str(status)] = PROBLEM


docs_router = APIRouter(tags=["docs"])
DOCS_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Vestnik API</title><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "{CONTRACT}", dom_id: "#ui", persistAuthorization: true}})</script></body></html>"""


@docs_router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    return HTMLResponse(PAGE)


@docs_router.get("/docs/{name}", include_in_schema=False)
async def docs_file(name: str) -> FileResponse:
    if name not in DOCS_FILES:
        raise NotFound
    return FileResponse(STATIC / name, media_type=DOCS_FILES[name], headers={"Cache-Control": "max-age=86400"})
