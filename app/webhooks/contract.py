"""The `webhooks` section of the OpenAPI document: what an endpoint of the billing has to take. Nobody serves these; they are described."""

from typing import Annotated

from fastapi import APIRouter, Header

from app.webhooks.bodies import InboundTold, MessageTold, PingTold
from app.webhooks.models import PING, TYPES

WebhookId = Annotated[str, Header(description="The same on every attempt, and on a replay: what has come already is answered 2xx and let be")]
WebhookTimestamp = Annotated[int, Header(description="Seconds since 1970: when this attempt was made. Refuse what is older than five minutes")]
WebhookSignature = Annotated[
    str,
    Header(
        description="`v1,` and the base64 of HMAC-SHA256 over `webhook-id.webhook-timestamp.body`; two of them, with a space between, while a secret changes"
    ),
]
ANSWERS = {
    "2XX": {"description": "Taken: it is not sent again. Answer within fifteen seconds; the body is not looked at"},
    "410": {"description": "Nothing more, please: the endpoint is disabled"},
    "default": {
        "description": "Sent again, with growing pauses over two days. 429 and 503 may say Retry-After, an hour at the most. Redirects are not followed"
    },
}

router = APIRouter(tags=["webhooks"])


async def message_told(body: MessageTold, webhook_id: WebhookId, webhook_timestamp: WebhookTimestamp, webhook_signature: WebhookSignature) -> None:
    """A message has entered a final state. Order is not promised; after `unknown`, `undelivered` and `expired` there may be another one."""


async def inbound_told(body: InboundTold, webhook_id: WebhookId, webhook_timestamp: WebhookTimestamp, webhook_signature: WebhookSignature) -> None:
    """A subscriber has sent an SMS."""


async def ping_told(body: PingTold, webhook_id: WebhookId, webhook_timestamp: WebhookTimestamp, webhook_signature: WebhookSignature) -> None:
    """A test that somebody has asked for over the API. It comes once."""


for name in (*TYPES, PING):
    told, summary = (
        (message_told, f"A message is {name.partition('.')[2]}")
        if name.startswith("message.")
        else (ping_told, "A test")
        if name == PING
        else (inbound_told, "An SMS from a subscriber")
    )
    router.add_api_route(name, told, methods=["POST"], operation_id=f"told_{name.replace('.', '_')}", summary=summary, responses=ANSWERS, status_code=204)  # type: ignore[arg-type]
