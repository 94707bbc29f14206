"""Every table, in one import: what migrations compare the database with."""

from app.accounts import models as accounts
from app.attachments import models as attachments
from app.catalogue import models as catalogue
from app.core import models as core
from app.events import models as events
from app.forecasts import models as forecasts
from app.gateways import models as gateways
from app.notifications import models as notifications
from app.rendering import models as rendering
from app.sending import models as sending
from app.tracking import models as tracking
from app.tracking.reports import models as reports
from app.webhooks import models as webhooks

__all__ = [
    "accounts",
    "attachments",
    "catalogue",
    "core",
    "events",
    "forecasts",
    "gateways",
    "notifications",
    "rendering",
    "reports",
    "sending",
    "tracking",
    "webhooks",
]
